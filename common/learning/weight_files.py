"""Weight files of Keras and NumPy by tensor name, read and written without TensorFlow.

`.weights.h5` and `.keras` as Keras 3 writes them, `.h5` of whole models or weights as Keras 2 and 3 write
them, and `.npz`. A tensor is named by its layers and its place there: `dense_1/0` is the kernel and
`dense_1/1` the bias of layer `dense_1`; the running statistics of BatchNorm keep their names.
"""

import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from common.errors import ConfigError, DataError
from common.files import write_atomic
from common.weights import DTYPES, Tensor

if TYPE_CHECKING:
    import h5py

NamedTensors: TypeAlias = dict[str, Tensor]
SUFFIXES = (".weights.h5", ".h5", ".keras", ".npz")
INSIDE_KERAS = "model.weights.h5"
STATISTICS = ("moving_mean", "moving_variance")
NO_WEIGHTS = ("optimizer", "optimizer_weights", "seed_generator", "compile_metrics")
"""Groups of a file whose numbers belong to a training, not to the model."""


def read(path: Path) -> NamedTensors:
    """Read every tensor of `path`, in the file's order.

    Raises DataError that names the file where it is damaged, holds no weights, or one that is not finite;
    ConfigError where its name ends in none of SUFFIXES, or h5py is missing.
    """
    try:
        if _suffix(path) == ".npz":
            tensors = _read_npz(path)
        else:
            with _opened(path) as file:
                tensors = {name: np.asarray(dataset[()]) for name, dataset in _datasets(file).items()}
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot read the weights: {_reason(error)}") from error
    _check(path, tensors)
    return tensors


def write(path: Path, tensors: Mapping[str, Tensor], like: Path) -> None:
    """Write `tensors` to `path`: an `.npz`, or a copy of the weight file `like` with these values in their places.

    Whatever else `like` holds is copied. Raises ConfigError where `path` is to be another kind of file than `like`,
    DataError where `like` lacks a tensor, WorkError where the disk fails.
    """
    content = io.BytesIO()
    if _suffix(path) == ".npz":
        np.savez(content, **dict(tensors))  # type: ignore[arg-type]  # a name that savez takes for an option is no layer's
    elif _suffix(path) != _suffix(like):
        raise ConfigError(f"{path}: its layout is copied from {like}, so it must end in {_suffix(like)}, or in .npz")
    elif _suffix(path) == ".keras":
        _rezip(like, tensors, content)
    else:
        content.write(like.read_bytes())
        _replace(content, tensors, like)
    write_atomic(path, content.getvalue())


def match(expected: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, str]:
    """Return which name of `found` stands for which one of `expected`; a name that has no partner is left out.

    Names are equal, or become so once the numbers that Keras counts up within a process begin at 0: a model that
    was built second has layers `dense_2` and `dense_3` where the first has `dense` and `dense_1`.
    """
    if expected.keys() <= found.keys():
        return {name: name for name in expected}
    plain = {new: old for old, new in _renumbered(found).items()}
    pairs = {name: plain[new] for name, new in _renumbered(expected).items() if new in plain}
    return pairs if len(pairs) == len(expected) else {name: name for name in expected if name in found}


# ---- files ----------------------------------------------------------------------------------


def _suffix(path: Path) -> str:
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return suffix
    raise ConfigError(f"{path}: not a weight file that is known here; its name must end in {', '.join(SUFFIXES)}")


def _read_npz(path: Path) -> NamedTensors:
    with np.load(path, allow_pickle=False) as arrays:
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")  # noqa: TRY004 - like every other damage
        return {name: arrays[name] for name in arrays.files}


@contextmanager
def _opened(path: Path) -> "Iterator[h5py.File]":
    if _suffix(path) == ".keras":
        with zipfile.ZipFile(path) as archive:
            content = io.BytesIO(archive.read(INSIDE_KERAS))
        with _h5py().File(content, "r") as file:
            yield file
    else:
        path.open("rb").close()  # h5py's own sentence for a missing file does not say so
        with _h5py().File(path, "r") as file:
            yield file


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ConfigError("reading weights of Keras needs h5py: install fedpi[tools] or fedpi[learning]") from error
    return h5py


def _rezip(like: Path, tensors: Mapping[str, Tensor], out: io.BytesIO) -> None:
    with zipfile.ZipFile(like) as archive, zipfile.ZipFile(out, "w") as copy:
        for member in archive.infolist():
            content = io.BytesIO(archive.read(member))
            if member.filename == INSIDE_KERAS:
                _replace(content, tensors, like)
            copy.writestr(member, content.getvalue())


def _replace(content: io.BytesIO, tensors: Mapping[str, Tensor], like: Path) -> None:
    with _h5py().File(content, "r+") as file:
        datasets = _datasets(file)
        names = match(tensors, datasets)
        for name, tensor in tensors.items():
            if name not in names:
                raise DataError(f"{like}: it has no tensor {name!r}, so the result does not fit its layout")
            datasets[names[name]][...] = tensor


def _check(path: Path, tensors: NamedTensors) -> None:
    if not tensors:
        raise DataError(f"{path}: it holds no weights")
    for name, tensor in tensors.items():
        if tensor.dtype.name not in DTYPES:
            raise DataError(f"{path}: tensor {name!r} has dtype {tensor.dtype}; allowed are {', '.join(DTYPES)}")
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise DataError(f"{path}: tensor {name!r} holds a number that is not finite")


# ---- names ----------------------------------------------------------------------------------


def _datasets(file: "h5py.File") -> "dict[str, h5py.Dataset]":
    root = file.get("model_weights", file)
    return dict(_of_keras_2(root) if _texts(root, "layer_names") else _of_keras_3(root, ()))


def _of_keras_3(group: "h5py.Group", above: tuple[str, ...]) -> "Iterator[tuple[str, h5py.Dataset]]":
    """Walk `layers/dense_1/vars/0`; the group `vars` carries the layer's own name as an attribute."""
    for key, child in group.items():
        if key in NO_WEIGHTS:
            continue
        if key == "vars":
            is_norm = "batch_normalization" in str(group.name).rpartition("/")[2]
            for place, variable in enumerate(sorted(child, key=int)):
                left = len(child) - place
                name = STATISTICS[-left] if is_norm and left <= len(STATISTICS) else variable
                yield "/".join((*above, name)), child[variable]
        elif key in {"layers", "_layer_checkpoint_dependencies"}:  # the latter until Keras 2.15
            yield from _of_keras_3(child, above)
        else:
            own = child["vars"].attrs.get("name", key) if "vars" in child else key
            yield from _of_keras_3(child, (*above, str(own)))


def _of_keras_2(root: "h5py.Group") -> "Iterator[tuple[str, h5py.Dataset]]":
    """Walk the layers and weights that the attributes `layer_names` and `weight_names` list."""
    for layer in _texts(root, "layer_names"):
        places: dict[tuple[str, ...], int] = {}
        for weight in _texts(root[layer], "weight_names"):
            *levels, variable = weight.partition(":")[0].split("/")
            below = tuple(levels[levels.index(layer) + 1 :] if layer in levels else levels)
            place = places.get(below, 0)
            places[below] = place + 1
            name = variable if variable in STATISTICS else str(place)
            yield "/".join((layer, *below, name)), root[layer][weight]


def _texts(group: "h5py.Group", attribute: str) -> list[str]:
    """Read a list of texts; Keras cuts a long one into attributes that end in 0, 1 and so on."""
    pieces = {
        int(name.removeprefix(attribute) or 0): name for name in group.attrs if re.fullmatch(rf"{attribute}\d*", name)
    }
    values = [value for _, name in sorted(pieces.items()) for value in group.attrs[name]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _renumbered(names: Mapping[str, Any]) -> dict[str, str]:
    """Return the names with layer numbers that begin at 0 among the layers of one kind below the same layer."""
    least: dict[tuple[str, str], int] = {}
    for name in names:
        for above, kind, number in _levels(name):
            least[above, kind] = min(least.get((above, kind), number), number)
    return {
        name: "/".join(
            [f"{kind}_{number - least[above, kind]}" for above, kind, number in _levels(name)]
            + [name.rpartition("/")[2]]
        )
        for name in names
    }


def _levels(name: str) -> Iterator[tuple[str, str, int]]:
    """Yield each layer in a tensor's name: what stands above it, its kind, its number."""
    above = ""
    for level in name.split("/")[:-1]:
        found = re.fullmatch(r"(.+?)_(\d+)", level)
        yield above, found[1] if found else level, int(found[2]) if found else 0
        above += f"{level}/"


def _reason(error: Exception) -> str:
    said = getattr(error, "strerror", None) or str(error)
    return said.strip().partition("\n")[0][:300]
