"""ZIP files whose members are read only as far as a bound allows: `.npz` of NumPy and `.keras` of Keras 3."""

import math
import zipfile
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from common.errors import DataError
from common.weights import DTYPES, MAX_TENSORS, Tensor

METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
MAX_HEADER = 10_000


def open_archive(file: IO[bytes], allowed: int) -> zipfile.ZipFile:
    """Open a ZIP file whose members are `allowed` bytes at most, as they declare. Raises DataError."""
    archive = zipfile.ZipFile(file)
    members = archive.infolist()
    if len(members) > 2 * MAX_TENSORS:
        raise DataError(f"it holds {len(members)} files; the limit is {2 * MAX_TENSORS}")
    if len({member.filename for member in members}) != len(members):
        raise DataError("it holds two files of one name")
    for member in members:
        if member.compress_type not in METHODS or member.flag_bits & 1:
            raise DataError(f"{member.filename!r} in it is packed in a way that is not read here, or encrypted")
    if (total := sum(member.file_size for member in members)) > allowed:
        raise DataError(too_large(total, allowed))
    return archive


def too_large(total: int, allowed: int) -> str:
    """Say that what a file claims to hold is more than a file of its size may."""
    return f"it claims to hold {total:,} bytes, and a file of its size may hold {allowed:,}"


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Read one member, `limit` bytes at most, whatever it declares. Raises DataError where there is more."""
    with archive.open(name) as member:
        content = member.read(limit + 1)
        if len(content) > limit:
            raise DataError(f"{name!r} in it is larger than {limit:,} bytes")
        return content


def arrays(archive: zipfile.ZipFile) -> Iterator[tuple[str, Tensor]]:
    """Yield name and value of every array in an `.npz`. Raises DataError for one that is no plain numbers."""
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if name == member.filename:
            raise DataError(f"{name!r} in it is no array")
        with archive.open(member) as file:
            yield name, _array(name, file, member.file_size)


def write_arrays(out: IO[bytes], tensors: Mapping[str, Tensor]) -> None:
    """Write an `.npz`: the same tensors give the same bytes."""
    with zipfile.ZipFile(out, "w") as archive:
        for name, tensor in tensors.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(tensor), allow_pickle=False)


def _array(name: str, file: IO[bytes], size: int) -> Tensor:
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = reader(file, max_header_size=MAX_HEADER)
    if dtype.hasobject:
        raise DataError(f"array {name!r} in it holds Python objects, which are code: refused")
    if dtype.name not in DTYPES:
        raise DataError(f"tensor {name!r} has dtype {dtype.name}; allowed are {', '.join(DTYPES)}")
    if any(length < 0 for length in shape) or (nbytes := math.prod(shape) * dtype.itemsize) > size:
        raise DataError(f"array {name!r} in it claims shape {list(shape)}, and the file has {size:,} bytes of it")
    content = file.read(nbytes + 1)
    if len(content) != nbytes:
        raise DataError(f"array {name!r} in it has {len(content):,} bytes where shape {list(shape)} needs {nbytes:,}")
    flat: np.ndarray[Any, Any] = np.frombuffer(content, dtype)
    return flat.reshape(shape, order="F" if is_fortran else "C")
