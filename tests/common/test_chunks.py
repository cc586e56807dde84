"""How a blob is cut, named and verified."""

import contextlib
import hashlib

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.chunks import (
    MAX_CHUNKS,
    ChunkHasher,
    Head,
    Layout,
    decode_head,
    digest_of,
    encode_head,
    from_wire,
    full,
    indexes,
    layout_of,
    lowest,
    ref_of,
    to_wire,
    zeros_digest,
)
from common.errors import PeerError
from common.messages import Ref
from common.weights import TensorSpec

SPEC = (TensorSpec("kernel", (2500,), "float32"),)
bitmaps = st.integers(0, 2**70) | st.sets(st.integers(0, 2000)).map(lambda bits: sum(1 << bit for bit in bits))


def head_of(body: bytes, chunk_bytes: int = 4096) -> Head:
    hasher = ChunkHasher(chunk_bytes)
    hasher.update(body)
    return hasher.head(SPEC if len(body) == 10_000 else None)


@given(st.integers(1, 50_000), st.integers(0, 50_000), st.integers(4096, 10_000))
def test_the_chunks_of_a_stream_tile_head_and_body(head_bytes: int, size: int, chunk_bytes: int) -> None:
    layout = Layout(head_bytes, size, chunk_bytes)
    spans = [layout.span(index) for index in range(layout.total)]
    for end, part in ((head_bytes, spans[: layout.head_chunks]), (size, spans[layout.head_chunks :])):
        offset = 0
        for start, length in part:
            assert start == offset
            assert 0 < length <= chunk_bytes
            offset += length
        assert offset == end


@given(st.lists(st.binary(max_size=9000), max_size=5))
def test_pieces_of_any_size_give_the_head_of_the_whole(pieces: list[bytes]) -> None:
    hasher = ChunkHasher(4096)
    for piece in pieces:
        hasher.update(piece)
    body = b"".join(pieces)
    head = hasher.head(None)
    cut = [body[start : start + 4096] for start in range(0, len(body), 4096)]
    assert head.size == hasher.size == len(body)
    assert [head.digest(index) for index in range(len(cut))] == [digest_of(chunk) for chunk in cut]
    assert len(head.digests) == 32 * len(cut)


@given(st.binary(max_size=10_000) | st.just(bytes(10_000)))
def test_a_head_comes_back_and_names_the_blob(body: bytes) -> None:
    head = head_of(body)
    packed, ref = encode_head(head)
    assert ref == Ref(id=hashlib.sha256(packed).hexdigest(), head_bytes=len(packed), size=len(body), chunk_bytes=4096)
    assert decode_head(packed, ref) == head
    assert ref_of(packed) == ref


@given(st.integers(0, 400), st.integers(1, 255))
def test_any_change_of_a_head_is_noticed(place: int, change: int) -> None:
    packed, ref = encode_head(head_of(bytes(10_000)))
    damaged = bytearray(packed)
    damaged[place % len(packed)] ^= change
    with pytest.raises(PeerError, match="digest"):
        decode_head(bytes(damaged), ref)
    with contextlib.suppress(PeerError):
        ref_of(bytes(damaged))


def lying(**change: object) -> tuple[bytes, Ref]:
    """A head with other fields than an honest one, truly named."""
    fields = {**msgspec.to_builtins(head_of(bytes(10_000)), builtin_types=(bytes,)), **change}
    packed = msgpack.packb(fields)
    return packed, Ref(id=hashlib.sha256(packed).hexdigest(), head_bytes=len(packed), size=10_000, chunk_bytes=4096)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 9_999},
        {"size": -1},
        {"chunk_bytes": 8192},
        {"chunk_bytes": 0},
        {"digests": bytes(64)},
        {"digests": bytes(97)},
        {"digests": "text"},
        {"surplus": 1},
        {"spec": [{"name": "kernel", "shape": [2499], "dtype": "float32"}]},
        {"spec": [{"name": "kernel", "shape": [2500], "dtype": "object"}]},
        {"spec": [{"name": "kernel", "shape": [2500], "dtype": "no such"}]},
        {"spec": [{"name": "kernel", "shape": [-2500], "dtype": "float32"}]},
        {"spec": [{"name": "k", "shape": [2**31] * 8, "dtype": "float32"}]},
        {"spec": [{"name": "k", "shape": [1250], "dtype": "float32"}] * 2},
        {"spec": [{"name": "k", "shape": [1] * 9, "dtype": "float32"}]},
    ],
)
def test_a_head_that_contradicts_itself_is_refused(change: dict[str, object]) -> None:
    decode_head(*lying())
    with pytest.raises(PeerError):
        decode_head(*lying(**change))


@given(st.binary(max_size=200) | st.builds(bytes.__mul__, st.sampled_from([b"\x91", b"\x81\xa1a"]), st.just(5000)))
def test_bytes_that_are_no_head_are_refused(packed: bytes) -> None:
    with pytest.raises(PeerError):
        ref_of(packed)
    with pytest.raises(PeerError):
        decode_head(packed, Ref(id=hashlib.sha256(packed).hexdigest(), head_bytes=1, size=0, chunk_bytes=4096))


def test_a_blob_of_too_many_chunks_is_refused() -> None:
    ref = Ref(id="0" * 64, head_bytes=4096, size=4096 * (MAX_CHUNKS - 1), chunk_bytes=4096)
    assert layout_of(ref).total == MAX_CHUNKS
    with pytest.raises(PeerError, match=str(MAX_CHUNKS)):
        layout_of(msgspec.structs.replace(ref, size=ref.size + 1))


def test_zeros() -> None:
    assert zeros_digest(4096) == digest_of(bytes(4096))


@given(bitmaps)
def test_a_bitmap_comes_back_from_the_wire(bits: int) -> None:
    assert from_wire(to_wire(bits), bits.bit_length()) == bits
    assert list(indexes(bits)) == [index for index in range(bits.bit_length()) if bits >> index & 1]


@given(bitmaps, st.integers(0, 80))
def test_bits_past_the_end_are_dropped(bits: int, total: int) -> None:
    assert from_wire(to_wire(bits), total) == bits & full(total)


@given(bitmaps, st.integers(0, 100))
def test_the_lowest_bits(bits: int, count: int) -> None:
    assert list(indexes(lowest(bits, count))) == list(indexes(bits))[:count]
