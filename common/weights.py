"""Weights as bytes: tensors laid end to end, little-endian, C order, in the order of their spec.

No pickle anywhere: what a peer sends is a spec that we validate and bytes that we only ever
read as numbers of the dtype that the spec names.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.errors import PeerError

Tensor: TypeAlias = NDArray[Any]
DTYPES = (
    "float32",
    "float64",
    "float16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
)
MAX_TENSORS = 10_000
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Dimension = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name, shape and dtype of one tensor."""

    name: Name
    shape: Annotated[tuple[Dimension, ...], msgspec.Meta(max_length=8)]
    dtype: Name

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


Spec: TypeAlias = tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Segment:
    """A stretch of a blob that holds values of one dtype: `[offset, offset + nbytes)` in bytes."""

    offset: int
    nbytes: int
    dtype: np.dtype[Any]


def spec_of(names: Sequence[str], tensors: Sequence[Tensor]) -> Spec:
    """Describe `tensors`, whose names are `names`."""
    pairs = zip(names, tensors, strict=True)
    return tuple(TensorSpec(name, tuple(tensor.shape), tensor.dtype.name) for name, tensor in pairs)


def nbytes(spec: Spec) -> int:
    """Size in bytes of the weights that `spec` describes."""
    return sum(tensor.nbytes for tensor in spec)


def validate(spec: Spec) -> None:
    """Raise PeerError unless every dtype is one that we average, and no name stands twice."""
    names = [tensor.name for tensor in spec]
    if len(names) > MAX_TENSORS:
        raise PeerError(f"the spec lists {len(names)} tensors; the limit is {MAX_TENSORS}")
    if len(set(names)) != len(names):
        raise PeerError("the spec lists a tensor name twice")
    for tensor in spec:
        if tensor.dtype not in DTYPES:
            raise PeerError(f"tensor {tensor.name!r} has dtype {tensor.dtype!r}; allowed are {', '.join(DTYPES)}")


def difference(expected: Spec, found: Spec) -> str | None:
    """Say in one clause how `found` differs from `expected`, naming the tensor; None where they agree."""
    if len(expected) != len(found):
        return f"it has {len(found)} tensors where the global model has {len(expected)}"
    for want, got in zip(expected, found, strict=True):
        if want.name != got.name:
            return f"tensor {got.name!r} stands where the global model has {want.name!r}"
        if want.shape != got.shape:
            return f"tensor {got.name!r} has shape {list(got.shape)} where the global model has {list(want.shape)}"
        if want.dtype != got.dtype:
            return f"tensor {got.name!r} has dtype {got.dtype} where the global model has {want.dtype}"
    return None


def update_of(base: Tensor, local: Tensor) -> Tensor:
    """Return local - base in the tensor's own dtype; whole numbers are not averaged, so their update is zero."""
    return np.asarray(local - base) if base.dtype.kind == "f" else np.zeros_like(base)


def pack(spec: Spec, tensors: Sequence[Tensor]) -> bytes:
    """Lay `tensors` end to end; raises ValueError where one does not fit its place in `spec`."""
    if (reason := difference(spec, spec_of([t.name for t in spec], tensors))) is not None:
        raise ValueError(f"these weights do not fit the spec: {reason}")
    return b"".join(
        np.ascontiguousarray(t, np.dtype(s.dtype).newbyteorder("<")).tobytes()
        for s, t in zip(spec, tensors, strict=True)
    )


def unpack(spec: Spec, data: bytes | memoryview) -> list[Tensor]:
    """Read the tensors back as read-only views of `data`; raises PeerError where the length is wrong."""
    if len(data) != nbytes(spec):
        raise PeerError(f"the weights have {len(data)} bytes where their spec needs {nbytes(spec)}")
    views: list[Tensor] = []
    offset = 0
    for tensor in spec:
        flat = np.frombuffer(data, np.dtype(tensor.dtype).newbyteorder("<"), prod(tensor.shape), offset)
        views.append(flat.reshape(tensor.shape))
        offset += tensor.nbytes
    return views


def segments(spec: Spec, limit: int) -> Iterator[Segment]:
    """Walk the blob in stretches of one dtype and at most `limit` bytes, neighbours of one dtype merged.

    Coordinate-wise work (means, finite checks) goes through these, so that its memory does not
    grow with the model.
    """
    offset = 0
    start, run_dtype = 0, None
    for tensor in spec:
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        if run_dtype is not None and dtype != run_dtype:
            yield from _cut(start, offset, run_dtype, limit)
            start = offset
        run_dtype = dtype
        offset += tensor.nbytes
    if run_dtype is not None:
        yield from _cut(start, offset, run_dtype, limit)


def _cut(start: int, end: int, dtype: np.dtype[Any], limit: int) -> Iterator[Segment]:
    step = max(limit - limit % dtype.itemsize, dtype.itemsize)
    for offset in range(start, end, step):
        yield Segment(offset, min(step, end - offset), dtype)
