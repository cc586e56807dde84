"""`fedpi-coordinator aggregate`: weight files to one, by the code that live rounds use, so with the same bytes."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from common.command import listed, option_value
from common.config import convert
from common.errors import ConfigError, DataError, UsageError, WorkError
from common.files import write_atomic
from common.learning import weight_files
from common.learning.matching import has_twins, match, shapes_of
from common.learning.weight_files import BY_PLACE, NamedTensors, WeightFile
from common.weights import Spec, Tensor, difference, pack, spec_of, unpack, update_of
from coordinator.aggregation import Aggregation, Contribution, aggregate
from coordinator.strategies.catalogue import AnyStrategy
from coordinator.strategies.strategy import Strategy
from coordinator.wording import count

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Task:
    """What to aggregate: files of local weights in the order in which they count, and their numbers of examples."""

    files: Sequence[Path]
    examples: Sequence[int]
    strategy: Strategy
    base: Path | None
    """The global weights that the local ones were trained from; without them those are combined as they are."""
    moments: Path | None = None
    """Where a server optimiser keeps what it remembers from one call to the next."""
    is_shared_only: bool = False
    """Whether a file may hold tensors that the global weights do not have; they are left out."""


class Share(msgspec.Struct, frozen=True):
    """One file's part in the result; the weights of all add up to 1."""

    file: str
    examples: int
    weight: float


class Report(msgspec.Struct, frozen=True):
    """What became of the files."""

    out: str
    strategy: str
    tensors: int
    parameters: int
    files: tuple[Share, ...]


def read_task(files: Sequence[Path], *, name: str, options: Sequence[str], examples: str | None, **flags: Any) -> Task:
    """Read the command line's flags: `--strategy NAME --option KEY=VALUE ... --examples 60,30`. Raises ConfigError."""
    plain: dict[str, Any] = {}
    for option in options:
        key, is_given, value = option.partition("=")
        if not is_given:
            raise UsageError(f"--option {option}: write it as KEY=VALUE")
        plain[key] = option_value(value, f"--option {option}")
    try:
        strategy: Strategy = convert({**plain, "name": name}, AnyStrategy, "--strategy")  # type: ignore[arg-type]
    except ConfigError as error:
        raise UsageError(str(error)) from error
    return Task(files, _read_examples(examples, len(files)), strategy, **flags)


def _read_examples(text: str | None, files: int) -> list[int]:
    if text is None:
        return [1] * files
    parts = listed(text)
    if len(parts) != files or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--examples {text}: give a number above 0 for each of the {count(files, 'file')}, like 60,30")
    return [int(part) for part in parts]


def run(task: Task, out: Path) -> Report:
    """Write the new global weights to `out`, laid out like the global file, or the first one where there is none.

    Raises ConfigError for a task that makes no sense, DataError for a file that cannot be used, by its name.
    """
    _check(task)
    like = task.base or task.files[0]
    base = weight_files.load(like)
    if base.is_by_place and out.suffix == ".npz" and has_twins(shapes_of(base.tensors)):
        raise DataError(f"{like}: {BY_PLACE}, which an .npz cannot say; write a .weights.h5")
    named = base.tensors
    spec = spec_of(list(named), list(named.values()))
    with tempfile.TemporaryDirectory(prefix="fedpi-aggregate-") as folder:
        done = _prepare(task, base, spec, Path(folder))
        blocks = list(done.blocks)
    tensors = unpack(spec, b"".join(block.model for block in blocks))
    weight_files.write(out, dict(zip(named, tensors, strict=True)), like)
    if task.moments is not None and task.strategy.fresh_moments:
        write_atomic(task.moments, b"".join(block.moments for block in blocks))
    total = sum(done.weights.values())
    shares = zip(task.files, task.examples, done.weights.values(), strict=True)
    return Report(
        out=str(out),
        strategy=task.strategy.title,
        tensors=len(spec),
        parameters=sum(tensor.size for tensor in tensors),
        files=tuple(Share(str(file), examples, weight / total) for file, examples, weight in shares),
    )


def _check(task: Task) -> None:
    strategy = task.strategy
    if len(task.files) < strategy.least_updates:
        raise UsageError(
            f"{strategy.title} with these options needs at least {count(strategy.least_updates, 'file')};"
            f" here are {len(task.files)}"
        )
    if strategy.fresh_moments and task.base is None:
        raise UsageError(f"{strategy.title} moves the global weights: name their file with --global")


def _prepare(task: Task, like: WeightFile, spec: Spec, folder: Path) -> Aggregation:
    """Lay the updates out as a live round does, in a scratch folder, and begin."""
    base = [tensor if task.base else np.zeros_like(tensor) for tensor in like.tensors.values()]
    try:
        (folder / "base").write_bytes(pack(spec, base))
        contributions = []
        for place, (file, examples) in enumerate(zip(task.files, task.examples, strict=True)):
            found = weight_files.load(file)
            if found.is_by_place or like.is_by_place:
                _check_places(file, found, like)
            local = _fitting(file, found.tensors, spec, is_shared_only=task.is_shared_only)
            path = folder / f"{place:06d}"
            path.write_bytes(pack(spec, local if task.base is None else list(map(update_of, base, local))))
            contributions.append(Contribution(path.name, path, examples))
    except OSError as error:
        raise WorkError(f"{folder}: cannot lay out the updates: {error.strerror}") from error
    return aggregate(folder / "base", contributions, spec, task.strategy, _moments(task, spec))


def _check_places(file: Path, found: WeightFile, like: WeightFile) -> None:
    """See that places, which are no names, mean the same layers in both, or that shapes tell the layers apart."""
    one, other = shapes_of(found.tensors), shapes_of(like.tensors)
    is_same = found.is_by_place and like.is_by_place and one == other
    if not is_same and (has_twins(one) or has_twins(other)):
        which = "it" if found.is_by_place else "the file of the global weights"
        raise DataError(f"{file}: {which} {BY_PLACE}, so that nothing says which layer is which; save it as .keras")


def _fitting(file: Path, found: NamedTensors, spec: Spec, *, is_shared_only: bool) -> list[Tensor]:
    """Bring a file's tensors into the order of `spec`; raises DataError that names the file and the tensor."""
    names = match({tensor.name: tensor.shape for tensor in spec}, shapes_of(found))
    missing = [tensor.name for tensor in spec if tensor.name not in names]
    if missing:
        raise DataError(f"{file}: it has no tensor {missing[0]!r}, which the global weights have{_more(missing)}")
    surplus = sorted(found.keys() - set(names.values()))
    if surplus and not is_shared_only:
        raise DataError(
            f"{file}: the global weights have no tensor {surplus[0]!r}{_more(surplus)};"
            " --shared-only leaves out what they do not have"
        )
    tensors = [found[names[tensor.name]] for tensor in spec]
    if (reason := difference(spec, spec_of([tensor.name for tensor in spec], tensors))) is not None:
        raise DataError(f"{file}: {reason}")
    return tensors


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _moments(task: Task, spec: Spec) -> Path | None:
    """Return the file of the moments if it is there; raises DataError where it belongs to something else."""
    if task.moments is None or not task.moments.exists():
        return None
    values = sum(tensor.nbytes // np.dtype(tensor.dtype).itemsize for tensor in spec)
    expected = 8 * len(task.strategy.fresh_moments) * values
    if (size := task.moments.stat().st_size) != expected:
        raise DataError(
            f"{task.moments}: has {size} bytes where {task.strategy.title} keeps {expected} for these weights;"
            " it belongs to another strategy or model"
        )
    return task.moments


def show(report: Report, console: "Console") -> None:
    """Print what became of the files."""
    from rich.table import Table

    table = Table("file", "examples", "weight", box=None, pad_edge=False)
    for share in report.files:
        table.add_row(share.file, str(share.examples), f"{share.weight:.4f}")
    console.print(table)
    what = f"{count(report.tensors, 'tensor')}, {report.parameters:,} values"
    console.print(f"{report.out}: {what}, by {report.strategy}")
