"""How a blob travels: a stream of chunks, first the head (what the blob is), then the body (its bytes).

The head lists the SHA-256 of every body chunk, and the blob's id is the SHA-256 of the head: so a
chunk is verified the moment it arrives, one pass over the bytes verifies all of them, and a chunk
whose digest the receiver already holds, from whatever blob, need not travel.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Annotated

import msgpack
import msgspec
import numpy as np

from common.errors import FalseHeadError, PeerError, UnusableHeadError
from common.messages import Ref
from common.packing import convert
from common.weights import Spec, nbytes, validate

DIGEST_BYTES = 32
MAX_CHUNKS = 65_536


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a blob is: size in bytes, size of its chunks, their digests end to end, and for weights their spec."""

    size: Annotated[int, msgspec.Meta(ge=0, le=2**34)]
    chunk_bytes: Annotated[int, msgspec.Meta(ge=2**12, le=2**18)]
    digests: Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES * MAX_CHUNKS)]
    spec: Spec | None = None

    def digest(self, index: int) -> bytes:
        """SHA-256 of body chunk `index`."""
        return self.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]


@dataclass(frozen=True)
class Layout:
    """Where the chunks of a stream lie: indexes count the head's chunks first, then the body's."""

    head_bytes: int
    size: int
    chunk_bytes: int

    @cached_property
    def head_chunks(self) -> int:
        """Number of chunks of the head."""
        return -(-self.head_bytes // self.chunk_bytes)

    @cached_property
    def total(self) -> int:
        """Number of chunks of head and body."""
        return self.head_chunks + -(-self.size // self.chunk_bytes)

    def span(self, index: int) -> tuple[int, int]:
        """Offset and length in bytes of chunk `index` within the head or, past it, within the body."""
        in_head = index < self.head_chunks
        offset = (index if in_head else index - self.head_chunks) * self.chunk_bytes
        return offset, min(self.chunk_bytes, (self.head_bytes if in_head else self.size) - offset)


def layout_of(ref: Ref) -> Layout:
    """Lay out the stream of `ref`; raises PeerError when it has more chunks than the protocol allows."""
    layout = Layout(ref.head_bytes, ref.size, ref.chunk_bytes)
    if layout.total > MAX_CHUNKS:
        raise PeerError(f"blob {ref.id[:8]} has {layout.total} chunks; the limit is {MAX_CHUNKS}")
    return layout


def digest_of(data: bytes | memoryview) -> bytes:
    """SHA-256 of one chunk."""
    return hashlib.sha256(data).digest()


class ChunkHasher:
    """Digests of the chunks of a body that comes in pieces of any size."""

    def __init__(self, chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        self._digests = bytearray()
        self._hash, self._filled = hashlib.sha256(), 0
        self.size = 0

    def update(self, data: bytes) -> None:
        """Take the next piece."""
        self.size += len(data)
        view = memoryview(data)
        while view:
            taken = view[: self._chunk_bytes - self._filled]
            self._hash.update(taken)
            self._filled += len(taken)
            view = view[len(taken) :]
            if self._filled == self._chunk_bytes:
                self._end_chunk()

    def head(self, spec: Spec | None) -> Head:
        """Return the head of the body that was taken."""
        if self._filled:
            self._end_chunk()
        return Head(self.size, self._chunk_bytes, bytes(self._digests), spec)

    def _end_chunk(self) -> None:
        self._digests += self._hash.digest()
        self._hash, self._filled = hashlib.sha256(), 0


@lru_cache(maxsize=64)
def zeros_digest(length: int) -> bytes:
    """SHA-256 of `length` zero bytes: what the update of a frozen layer consists of."""
    return digest_of(bytes(length))


def encode_head(head: Head) -> tuple[bytes, Ref]:
    """Write `head`, and the Ref that names the blob by it."""
    packed: bytes = msgpack.packb(msgspec.to_builtins(head, builtin_types=(bytes,)), use_bin_type=True)
    blob = hashlib.sha256(packed).hexdigest()
    return packed, Ref(id=blob, head_bytes=len(packed), size=head.size, chunk_bytes=head.chunk_bytes)


def ref_of(packed: bytes) -> Ref:
    """Return the Ref of the blob whose head is `packed`; raises PeerError when it is no head."""
    head = _parse_head(packed)
    blob = hashlib.sha256(packed).hexdigest()
    return Ref(id=blob, head_bytes=len(packed), size=head.size, chunk_bytes=head.chunk_bytes)


def decode_head(packed: bytes, ref: Ref) -> Head:
    """Read the head of `ref`.

    Raises FalseHeadError unless it is the one that `ref` names, UnusableHeadError unless that one holds together.
    """
    if hashlib.sha256(packed).hexdigest() != ref.id:
        raise FalseHeadError(f"the head of blob {ref.id[:8]} does not have the digest that names it")
    try:
        return _check_head(_parse_head(packed), ref)
    except PeerError as error:
        raise UnusableHeadError(str(error)) from error


def _check_head(head: Head, ref: Ref) -> Head:
    layout = layout_of(ref)
    if (head.size, head.chunk_bytes) != (ref.size, ref.chunk_bytes):
        raise PeerError(f"the head of blob {ref.id[:8]} contradicts its announcement")
    if len(head.digests) != (layout.total - layout.head_chunks) * DIGEST_BYTES:
        raise PeerError(f"the head of blob {ref.id[:8]} does not list one digest a chunk")
    if head.spec is not None:
        validate(head.spec)
        if nbytes(head.spec) != head.size:
            raise PeerError(f"blob {ref.id[:8]} has {head.size} bytes where its spec needs {nbytes(head.spec)}")
    return head


def _parse_head(packed: bytes) -> Head:
    try:
        head: Head = convert(msgpack.unpackb(packed, strict_map_key=True), Head)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise PeerError(f"not a valid head: {str(error)[:200]}") from error
    return head


# ---- bitmaps: Python integers inside, bytes on the wire -------------------------------------


@lru_cache(maxsize=64)
def full(total: int) -> int:
    """Return the bitmap with the first `total` bits set."""
    return (1 << total) - 1


def full_body(head: Head) -> int:
    """Return the bitmap of all body chunks."""
    return full(Layout(0, head.size, head.chunk_bytes).total)


def zero_chunks(head: Head) -> int:
    """Return the bitmap of the body chunks that hold nothing but zeros."""
    layout = Layout(0, head.size, head.chunk_bytes)
    return sum(1 << i for i in range(layout.total) if head.digest(i) == zeros_digest(layout.span(i)[1]))


def to_wire(bits: int) -> bytes:
    """Write a bitmap: bit `i` of byte `i // 8`, least significant first."""
    return bits.to_bytes(-(-bits.bit_length() // 8), "little")


def from_wire(data: bytes, total: int) -> int:
    """Read a bitmap; bits past `total` are dropped."""
    return int.from_bytes(data, "little") & full(total)


def indexes(bits: int) -> Iterator[int]:
    """Indexes of the bits that are set, ascending."""
    if bits.bit_length() <= 512:  # a window: NumPy would take longer to start
        while bits:
            lowest_bit = bits & -bits
            yield lowest_bit.bit_length() - 1
            bits ^= lowest_bit
        return
    flat = np.frombuffer(to_wire(bits), np.uint8)
    yield from np.flatnonzero(np.unpackbits(flat, bitorder="little")).tolist()


def lowest(bits: int, count: int) -> int:
    """Return the bitmap of the `count` lowest set bits of `bits`."""
    if bits.bit_count() <= count:
        return bits
    chosen = 0
    for position, index in enumerate(indexes(bits)):
        if position == count:
            break
        chosen |= 1 << index
    return chosen
