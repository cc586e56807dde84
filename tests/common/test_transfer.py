"""The receiver's state machine, joined to a sender by a link that loses, doubles and reorders. Time is virtual."""

import hashlib
import heapq
import random
from dataclasses import dataclass, field

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.chunks import Head, Layout, encode_head, from_wire, full, indexes, to_wire
from common.chunks import digest_of as sha
from common.errors import PeerError
from common.messages import Chunk, Ref
from common.transfer import (
    FalseHead,
    HeadKnown,
    Nothing,
    Patience,
    Receiver,
    Stored,
    UnusableHead,
    adopt,
    on_chunk,
    receive,
    wish,
)
from common.weights import TensorSpec

CHUNK = 4096
PATIENCE = Patience(2.0, 30.0)


@dataclass(frozen=True)
class Blob:
    """A blob in memory, as its sender holds it."""

    body: bytes
    packed: bytes
    ref: Ref

    @property
    def layout(self) -> Layout:
        return Layout(self.ref.head_bytes, self.ref.size, self.ref.chunk_bytes)

    def chunk(self, index: int) -> Chunk:
        offset, length = self.layout.span(index)
        source = self.packed if index < self.layout.head_chunks else self.body
        return Chunk(blob=self.ref.id, index=index, data=source[offset : offset + length])


def blob_of(body_chunks: int, seed: int = 0) -> Blob:
    """A blob of that many body chunks, the last one short; from 125 on its head takes more than one chunk."""
    body = random.Random(seed).randbytes(max(body_chunks * CHUNK - 100, 0))
    digests = b"".join(sha(body[at : at + CHUNK]) for at in range(0, len(body), CHUNK))
    packed, ref = encode_head(Head(len(body), CHUNK, digests))
    return Blob(body, packed, ref)


SMALL = blob_of(10)
LARGE = blob_of(260)
blobs = st.sampled_from([blob_of(0), blob_of(1), SMALL, LARGE])


@dataclass
class Wire:
    """What is on its way, by time of arrival. `loss` and `doubling` are probabilities of one chunk or wish."""

    seed: int
    loss: float = 0.0
    doubling: float = 0.0
    spread_s: float = 0.0
    sent: int = 0
    _queue: list[tuple[float, int, Chunk]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def ask(self, blob: Blob, bits: int, now: float) -> None:
        """Carry a wish there and its chunks back."""
        if self.random.random() < self.loss:
            return
        for index in indexes(from_wire(to_wire(bits), blob.layout.total)):
            copies = 1 + (self.random.random() < self.doubling)
            for _ in range(copies):
                self.sent += 1
                if self.random.random() >= self.loss:
                    at = now + 0.05 + self.random.random() * self.spread_s
                    heapq.heappush(self._queue, (at, self.sent, blob.chunk(index)))

    def next_at(self) -> float:
        return self._queue[0][0] if self._queue else float("inf")

    def pop(self) -> tuple[float, Chunk]:
        at, _, chunk = heapq.heappop(self._queue)
        return at, chunk


@dataclass
class Disk:
    """The receiving end with its body; obeys the outcomes of the state machine."""

    blob: Blob
    receiver: Receiver
    window: int
    body: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self.body = bytearray(self.blob.ref.size)

    def take(self, chunk: Chunk, now: float) -> None:
        self.receiver, outcome = on_chunk(self.receiver, chunk, now)
        match outcome:
            case Stored(offset, data):
                self.body[offset : offset + len(data)] = data
            case HeadKnown(head, _):
                self.receiver = adopt(self.receiver, head, 0)

    def ask(self, wire: Wire, now: float) -> int:
        self.receiver, bits = wish(self.receiver, self.window, now)
        outstanding = self.receiver.asked & self.receiver.missing
        assert outstanding.bit_count() <= self.window
        assert bits & ~self.receiver.missing == 0
        if bits:
            wire.ask(self.blob, bits, now)
        return bits


def carry(disk: Disk, wire: Wire, now: float = 0.0, limit_s: float = 1e5) -> float:
    """Let time pass until the blob is complete; returns when it was."""
    while not disk.receiver.is_complete:
        disk.ask(wire, now)
        if disk.receiver.is_complete:
            break
        now = max(now, min(wire.next_at(), disk.receiver.due_at()))
        assert now < limit_s, "the transfer never ends"
        while wire.next_at() <= now:
            at, chunk = wire.pop()
            disk.take(chunk, at)
    return now


def fresh(blob: Blob, window: int) -> Disk:
    return Disk(blob, receive(blob.ref, PATIENCE, 0.0), window)


wires = st.builds(
    Wire,
    seed=st.integers(0, 2**32),
    loss=st.floats(0, 0.6),
    doubling=st.floats(0, 0.5),
    spread_s=st.sampled_from([0.0, 0.3, 10.0]),
)


@given(blobs, wires, st.sampled_from([1, 2, 7, 64, 500]))
def test_any_loss_repetition_and_order_gives_the_blob(blob: Blob, wire: Wire, window: int) -> None:
    disk = fresh(blob, window)
    carry(disk, wire)
    assert bytes(disk.body) == blob.body


@pytest.mark.parametrize("window", [1, 3, 16, 500])
def test_a_good_link_carries_every_chunk_once_and_nobody_waits(window: int) -> None:
    disk, wire = fresh(LARGE, window), Wire(0)
    took_s = carry(disk, wire)
    assert wire.sent == LARGE.layout.total
    assert took_s < 0.05 * (LARGE.layout.total / max(window // 2, 1) + 5)


@given(blob=st.sampled_from([SMALL, LARGE]), data=st.data())
def test_a_flipped_bit_is_noticed_and_the_blob_completed(blob: Blob, data: st.DataObject) -> None:
    disk = fresh(blob, 500)
    false = data.draw(st.integers(0, blob.layout.total - 1))
    for index in range(blob.layout.total):
        chunk = blob.chunk(index)
        if index != false:
            disk.take(chunk, 0.0)
            continue
        place = data.draw(st.integers(0, len(chunk.data) - 1))
        flipped = chunk.data[place] ^ 1 << data.draw(st.integers(0, 7))
        damaged = chunk.data[:place] + bytes([flipped]) + chunk.data[place + 1 :]
        before = disk.receiver
        if index >= blob.layout.head_chunks:
            with pytest.raises(PeerError, match="digest"):
                disk.take(replace_data(chunk, damaged), 0.0)
            assert disk.receiver == before
        else:
            disk.take(replace_data(chunk, damaged), 0.0)
    assert not disk.receiver.is_complete
    carry(disk, Wire(0))
    assert bytes(disk.body) == blob.body


def replace_data(chunk: Chunk, data: bytes) -> Chunk:
    return Chunk(blob=chunk.blob, index=chunk.index, data=data)


def test_a_false_head_is_asked_for_again_after_the_usual_patience() -> None:
    disk, wire = fresh(LARGE, 500), Wire(0)
    head_bits = full(LARGE.layout.head_chunks)
    assert disk.ask(wire, 0.0) == head_bits
    disk.take(replace_data(LARGE.chunk(0), bytes(CHUNK)), 1.0)
    receiver = disk.receiver
    for index in range(1, LARGE.layout.head_chunks):
        receiver, outcome = on_chunk(receiver, LARGE.chunk(index), 1.0)
    assert isinstance(outcome, FalseHead)
    assert wish(receiver, 500, 1.5)[1] == 0
    assert wish(receiver, 500, 40.0)[1] == head_bits


def test_false_heads_that_come_again_and_again_are_no_progress() -> None:
    receiver, now, asked_at = receive(LARGE.ref, PATIENCE, 0.0), 0.0, list[float]()
    while now < 200.0:
        receiver, bits = wish(receiver, 500, now)
        if bits:
            asked_at.append(now)
            for index in range(LARGE.layout.head_chunks):
                receiver, _ = on_chunk(
                    receiver, replace_data(LARGE.chunk(index), bytes(LARGE.layout.span(index)[1])), now
                )
        now += 0.5
    assert len(asked_at) < 15, "the pauses grow to 30 s"
    assert receiver.silences > 1


@pytest.mark.parametrize(
    "packed",
    [
        b"no head at all",
        msgpack.packb([1, 2]),
        encode_head(Head(CHUNK, CHUNK, bytes(64)))[0],
        encode_head(Head(CHUNK, 2 * CHUNK, bytes(32)))[0],
        encode_head(Head(CHUNK, CHUNK, bytes(32), (TensorSpec("a", (5,), "float32"),)))[0],
    ],
)
def test_a_head_with_its_digest_that_is_none_is_told_and_not_asked_for_again(packed: bytes) -> None:
    ref = Ref(id=hashlib.sha256(packed).hexdigest(), head_bytes=len(packed), size=CHUNK, chunk_bytes=CHUNK)
    receiver, _ = wish(receive(ref, PATIENCE, 0.0), 500, 0.0)
    receiver, outcome = on_chunk(receiver, Chunk(blob=ref.id, index=0, data=packed), 1.0)
    assert isinstance(outcome, UnusableHead)
    assert wish(receiver, 500, 1000.0)[1] == 0


@pytest.mark.parametrize(
    ("index", "length"),
    [(SMALL.layout.total, CHUNK), (2**17, CHUNK), (1, CHUNK - 1), (1, CHUNK + 1), (1, 0), (10, CHUNK), (0, 1)],
)
def test_a_chunk_of_the_wrong_place_or_length_is_refused(index: int, length: int) -> None:
    receiver = receive(SMALL.ref, PATIENCE, 0.0)
    with pytest.raises(PeerError, match="place or length"):
        on_chunk(receiver, Chunk(blob=SMALL.ref.id, index=index, data=bytes(length)), 0.0)


def test_a_blob_of_too_many_chunks_is_not_begun() -> None:
    with pytest.raises(PeerError, match="chunks"):
        receive(Ref(id="0" * 64, head_bytes=1, size=2**34, chunk_bytes=4096), PATIENCE, 0.0)


def test_body_chunks_that_come_before_the_head_are_asked_for_later() -> None:
    receiver = receive(SMALL.ref, PATIENCE, 0.0)
    after, outcome = on_chunk(receiver, SMALL.chunk(5), 0.0)
    assert (after, outcome) == (receiver, Nothing())


def test_a_repeat_changes_nothing_but_a_counter() -> None:
    disk = fresh(SMALL, 500)
    for index in range(SMALL.layout.total - 1):
        disk.take(SMALL.chunk(index), 0.0)
    before = disk.receiver
    disk.take(SMALL.chunk(3), 5.0)
    assert disk.receiver == msgspec.structs.replace(before, repeated=1)


def test_what_is_on_disk_already_is_not_asked_for() -> None:
    receiver, outcome = on_chunk(receive(SMALL.ref, PATIENCE, 0.0), SMALL.chunk(0), 0.0)
    assert isinstance(outcome, HeadKnown)
    receiver = adopt(receiver, outcome.head, 0b0111111110)
    assert list(indexes(wish(receiver, 500, 0.0)[1])) == [1, 10]
    assert adopt(receiver, outcome.head, full(10)).is_complete


def test_more_is_asked_for_as_soon_as_half_the_window_is_here() -> None:
    disk, wire = fresh(LARGE, 8), Wire(0, loss=1.0)
    disk.ask(wire, 0.0)
    for index in range(LARGE.layout.head_chunks):
        disk.take(LARGE.chunk(index), 0.0)
    first = list(indexes(disk.ask(wire, 0.0)))
    for index in first[:3]:
        disk.take(LARGE.chunk(index), 0.1)
    assert disk.ask(wire, 0.1) == 0
    disk.take(LARGE.chunk(first[3]), 0.1)
    assert disk.ask(wire, 0.1).bit_count() == 4


def test_silence_is_answered_ever_more_slowly_and_never_given_up() -> None:
    receiver, first = wish(receive(SMALL.ref, PATIENCE, 0.0), 500, 0.0)
    waits, now = [], 0.0
    for _ in range(3000):
        assert wish(receiver, 500, receiver.due_at() - 0.01)[1] == 0
        waits.append(receiver.due_at() - now)
        now = receiver.due_at()
        receiver, again = wish(receiver, 500, now)
        assert again == first
    assert waits[:5] == [2.0, 4.0, 8.0, 16.0, 30.0]
    assert set(waits[5:]) == {30.0}


def test_one_chunk_ends_the_silence() -> None:
    disk, wire = fresh(LARGE, 500), Wire(0, loss=1.0)
    for now in (0.0, 2.0, 6.0, 14.0):
        disk.ask(wire, now)
    disk.take(LARGE.chunk(0), 15.0)
    assert disk.receiver.silences == 0


def test_the_patience_follows_a_slow_link() -> None:
    disk, wire = fresh(LARGE, 500), Wire(0, loss=1.0)
    disk.ask(wire, 0.0)
    for index in range(LARGE.layout.head_chunks):
        disk.take(LARGE.chunk(index), 0.0)
    disk.ask(wire, 0.0)
    for index in range(LARGE.layout.head_chunks, 40):
        disk.take(LARGE.chunk(index), 1.5 * index)
    assert disk.receiver.due_at() - disk.receiver.last_at > 5.0


def test_a_window_that_shrinks_lets_what_is_on_its_way_arrive_first() -> None:
    disk, wire = fresh(LARGE, 64), Wire(0, loss=1.0)
    for index in range(LARGE.layout.head_chunks):
        disk.take(LARGE.chunk(index), 0.0)
    disk.ask(wire, 0.0)
    receiver, bits = wish(disk.receiver, 4, 0.1)
    assert bits == 0
    receiver, again = wish(receiver, 4, 100.0)
    assert again.bit_count() == 4
