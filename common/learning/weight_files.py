"""Weight files of Keras and NumPy by tensor name, read and written without TensorFlow.

`.weights.h5` and `.keras` as Keras 2.13 and later write them, `.h5` of whole models or weights as Keras 2 and 3
write them, and `.npz`. What a file is, its first bytes say. `tensor_names` says how its tensors are named.
"""

import io
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from common.errors import ConfigError, DataError, WorkError
from common.files import write_atomic
from common.learning import archives, file_reader
from common.learning.file_child import INSIDE_KERAS
from common.learning.matching import match, shapes_of
from common.learning.outline import Layer
from common.learning.tensor_names import Names, name_tensors
from common.weights import Tensor

NamedTensors: TypeAlias = dict[str, Tensor]
SUFFIXES = (".weights.h5", ".h5", ".keras", ".npz")
BY_PLACE = "names layers by class and place only, as Keras 2.13 to 3.5 does"


@dataclass(frozen=True)
class WeightFile:
    """What a weight file holds."""

    tensors: NamedTensors
    """In the file's order."""
    is_by_place: bool
    """Whether the names say a layer's class and place instead of its name, as Keras 2.13 to 3.5 wrote them."""
    network: Layer | None
    """The layers, where the file describes them."""


def read(path: Path) -> NamedTensors:
    """Read every tensor of `path`, in the file's order. Raises as `load` does."""
    return load(path).tensors


def load(path: Path) -> WeightFile:
    """Read a weight file. Takes seconds at most, and memory in proportion to the file's size.

    Raises DataError that names the file where it is damaged, leads to other files, holds no weights, or one that
    is not finite; ConfigError where h5py is missing.
    """
    raw = file_reader.read_raw(path)
    names = _names(path, raw)
    tensors = {name: raw.tensors[place] for name, place in names.paths.items()}
    _check(path, tensors)
    return WeightFile(tensors, names.is_by_place, raw.network)


def write(path: Path, tensors: Mapping[str, Tensor], like: Path) -> None:
    """Write `tensors` to `path`: an `.npz`, or a copy of the weight file `like` with these values in their places.

    Whatever else `like` holds is copied. Raises ConfigError where `path` is to be another kind of file than `like`,
    DataError where `like` lacks a tensor, WorkError where the disk fails.
    """
    content = io.BytesIO()
    if suffix_of(path) == ".npz":
        archives.write_arrays(content, tensors)
    elif suffix_of(path) != suffix_of(like):
        raise ConfigError(f"{path}: its layout is copied from {like}, so it must end in {suffix_of(like)}, or in .npz")
    else:
        raw = file_reader.read_raw(like)
        if (raw.kind == "keras") != (suffix_of(path) == ".keras"):
            raise DataError(f"{like}: its content is not of the kind that its name says; rename it")
        placed = _places(like, raw, tensors)
        if raw.kind == "keras":
            _rezip(like, placed, content)
        else:
            content.write(_replaced(like.read_bytes(), placed))
    write_atomic(path, content.getvalue())


def suffix_of(path: Path) -> str:
    """Return which of SUFFIXES the name of a file ends in. Raises ConfigError where it ends in none."""
    for suffix in SUFFIXES:
        if path.name.endswith(suffix):
            return suffix
    raise ConfigError(f"{path}: the name of a weight file must end in {', '.join(SUFFIXES)}")


def _names(path: Path, raw: file_reader.Raw) -> Names:
    if raw.kind == "npz":
        return Names({name: name for name in raw.tensors}, is_by_place=False)
    try:
        return name_tensors(raw.groups, tuple(raw.tensors), raw.network)
    except DataError as error:
        raise DataError(f"{path}: cannot read the weights: {error}") from error


def _places(like: Path, raw: file_reader.Raw, tensors: Mapping[str, Tensor]) -> NamedTensors:
    """Return `tensors` by their paths in the file `like`."""
    paths = _names(like, raw).paths
    there = {name: raw.tensors[place] for name, place in paths.items()}
    names = match(shapes_of(tensors), shapes_of(there))
    for name, tensor in tensors.items():
        if name not in names or there[names[name]].shape != tensor.shape:
            raise DataError(f"{like}: it has no tensor {name!r} of this shape, so the result does not fit its layout")
    return {paths[names[name]]: tensor for name, tensor in tensors.items()}


def _rezip(like: Path, placed: Mapping[str, Tensor], out: io.BytesIO) -> None:
    allowed = file_reader.allowance(like.stat().st_size)
    with like.open("rb") as file, zipfile.ZipFile(file) as archive, zipfile.ZipFile(out, "w") as copy:
        for member in archive.infolist():
            content = archives.read_member(archive, member.filename, allowed)
            is_weights = member.filename == INSIDE_KERAS
            copy.writestr(member, _replaced(content, placed) if is_weights else content)


def _replaced(content: bytes, placed: Mapping[str, Tensor]) -> bytes:
    """Return an HDF5 file with these numbers in these places."""
    with tempfile.TemporaryDirectory(prefix="fedpi-weights-") as folder:
        draft, numbers = Path(folder) / "draft.h5", Path(folder) / "numbers.npz"
        try:
            draft.write_bytes(content)
            with numbers.open("wb") as file:
                archives.write_arrays(file, placed)
            file_reader.replace(draft, numbers)
            return draft.read_bytes()
        except OSError as error:
            raise WorkError(f"{folder}: cannot lay out the weights: {error.strerror}") from error


def _check(path: Path, tensors: NamedTensors) -> None:
    if not tensors:
        raise DataError(f"{path}: it holds no weights")
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise DataError(f"{path}: tensor {name!r} holds a number that is not finite")
