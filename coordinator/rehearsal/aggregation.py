"""How long every strategy takes over stored updates, beside reading them once, and how much memory.

Each strategy runs in a process of its own that holds what a coordinator holds:
`python -m coordinator.rehearsal.aggregation FOLDER STRATEGY`.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias, get_args

import msgspec
import numpy as np

from common.learning.numpy_learner import numpy_learner
from coordinator.aggregation import Contribution, aggregate
from coordinator.rehearsal.federation import run
from coordinator.strategies.catalogue import AnyStrategy

READ_BYTES = 2**18
REPEATS = 3
STRATEGIES: tuple[str, ...] = tuple(kind.__struct_config__.tag for kind in get_args(AnyStrategy))
Tell: TypeAlias = Callable[[str], object]


class Figures(msgspec.Struct, frozen=True):
    """Of one strategy: seconds with all files in memory and from the disk, the same of reading; peak in 10^6 bytes."""

    strategy: str
    cached_s: float
    cached_reading_s: float
    disk_s: float
    disk_reading_s: float
    peak_mb: float


def measure(folder: Path, devices: int, names: Sequence[str], tell: Tell) -> list[Figures]:
    """Write a model and an update of every device into `folder`, and measure the strategies `names`."""
    folder.mkdir(parents=True, exist_ok=True)
    tell(f"Writing a model of 9.04 MB and {devices} updates")
    values = sum(tensor.nbytes // 4 for tensor in numpy_learner({}).spec())
    for place in range(devices + 1):
        np.random.default_rng(place).standard_normal(values, np.float32).tofile(folder / f"{place:03d}.weights")
    found = []
    for name in names:
        tell(f"Aggregating by {name}")
        line = run(["coordinator.rehearsal.aggregation", str(folder), name], folder / f"{name}.log")
        found.append(msgspec.json.decode(line, type=Figures))
    return found


def _figures(folder: Path, name: str) -> Figures:
    import coordinator.service  # noqa: F401 - its memory counts too

    base, *updates = sorted(folder.glob("*.weights"))

    def read() -> None:
        for path in updates:
            with path.open("rb", buffering=0) as file:
                while file.read(READ_BYTES):
                    pass

    def combine() -> None:
        contributions = [Contribution(path.stem, path, 1 + place) for place, path in enumerate(updates)]
        spec, strategy = numpy_learner({}).spec(), msgspec.convert({"name": name}, AnyStrategy)
        for _ in aggregate(base, contributions, spec, strategy).blocks:
            pass

    def forget() -> None:
        for path in updates:
            _forget(path)

    disk_s, disk_reading_s = _seconds([combine, read], forget)
    cached_s, cached_reading_s = _seconds([combine, read], read)
    return Figures(name, cached_s, cached_reading_s, disk_s, disk_reading_s, _peak_mb())


def _seconds(works: Sequence[Callable[[], None]], prepare: Callable[[], None]) -> list[float]:
    """Return the median of each work's seconds. They take turns: the pace of a shared machine changes."""
    times: list[list[float]] = [[] for _ in works]
    for _ in range(REPEATS):
        for work, found in zip(works, times, strict=True):
            prepare()
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def _forget(path: Path) -> None:
    """Let the kernel drop the file from its cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(msgspec.to_builtins(_figures(Path(sys.argv[1]), sys.argv[2]))))  # noqa: T201 - for the parent
