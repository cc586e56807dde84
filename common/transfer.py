"""The receiver's side of a transfer as a state machine without I/O: receivers pull, senders only serve.

A receiver asks (`Want`) for at most a window of chunks, for more as soon as half of those are here,
and again for what did not come within its patience, which follows the pace of the link and doubles
with every silence. Lost, repeated and reordered messages need no other treatment.
"""

from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from common.chunks import Head, Layout, decode_head, digest_of, full, layout_of, lowest
from common.errors import FalseHeadError, PeerError, UnusableHeadError
from common.messages import Chunk, Ref

PACE = 8.0
"""Patience in multiples of the smoothed time between two chunks."""


@dataclass(frozen=True)
class Patience:
    """Seconds of silence before a receiver asks again, and the most that doubling makes of it."""

    first_s: float = 2.0
    most_s: float = 30.0


class Receiver(msgspec.Struct, frozen=True):  # replaced for every chunk, and msgspec replaces ten times faster
    """One blob on its way in. `held` and `asked` are bitmaps over the whole stream; times are monotonic seconds."""

    ref: Ref
    layout: Layout
    patience: Patience
    head: Head | None = None
    parts: tuple[bytes, ...] = ()
    held: int = 0
    asked: int = 0
    last_at: float = 0.0
    gap_s: float = 0.0
    silences: int = 0
    repeated: int = 0
    reached: int = 0
    """Most chunks that were held at a time: what comes again after a false head is no progress."""

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is held."""
        return self.head is not None and self.held == full(self.layout.total)

    @property
    def missing(self) -> int:
        """Bitmap of what may be asked for now: the head's chunks until the head is here, then the body's."""
        reach = self.layout.head_chunks if self.head is None else self.layout.total
        return full(reach) & ~self.held

    def due_at(self) -> float:
        """When to ask again if nothing arrives."""
        wait = max(self.patience.first_s, PACE * self.gap_s) * 2.0 ** min(self.silences, 60)
        return self.last_at + min(wait, self.patience.most_s)


@dataclass(frozen=True)
class Stored:
    """A new body chunk: write `data` at `offset` of the body."""

    offset: int
    data: bytes


@dataclass(frozen=True)
class HeadKnown:
    """The head is here and true: look which chunks are held already, then `adopt` them."""

    head: Head
    packed: bytes


@dataclass(frozen=True)
class FalseHead:
    """The head came whole and is not what its id names; it is asked for again."""

    reason: str


@dataclass(frozen=True)
class UnusableHead:
    """The head is what its id names, and is no head of this blob: nothing more is asked for."""

    reason: str


@dataclass(frozen=True)
class Nothing:
    """Nothing to do: a part of the head, a repeat, or a chunk that came before the head."""


Outcome = Stored | HeadKnown | FalseHead | UnusableHead | Nothing


def receive(ref: Ref, patience: Patience, now: float) -> Receiver:
    """Begin a transfer; raises PeerError when `ref` breaks the protocol's limits."""
    layout = layout_of(ref)
    return Receiver(ref, layout, patience, parts=(b"",) * layout.head_chunks, last_at=now)


def on_chunk(receiver: Receiver, chunk: Chunk, now: float) -> tuple[Receiver, Outcome]:
    """Take one chunk of `receiver.ref`; raises PeerError for one that is not what it claims to be."""
    layout = receiver.layout
    if chunk.index >= layout.total or len(chunk.data) != layout.span(chunk.index)[1]:
        raise PeerError(f"chunk {chunk.index} of blob {chunk.blob[:8]} has the wrong place or length")
    bit = 1 << chunk.index
    if receiver.held & bit:
        return replace(receiver, repeated=receiver.repeated + 1), Nothing()
    if chunk.index < layout.head_chunks:
        return _head_part(receiver, chunk, now)
    if receiver.head is None:
        return receiver, Nothing()
    if digest_of(chunk.data) != receiver.head.digest(chunk.index - layout.head_chunks):
        raise PeerError(f"chunk {chunk.index} of blob {chunk.blob[:8]} does not have the digest that its head lists")
    return _progress(receiver, bit, now), Stored(layout.span(chunk.index)[0], chunk.data)


def adopt(receiver: Receiver, head: Head, body: int) -> Receiver:
    """Continue with a known `head` and the body chunks of the bitmap `body`, which are on disk already."""
    head_chunks = receiver.layout.head_chunks
    held = full(head_chunks) | body << head_chunks
    reached = max(receiver.reached, held.bit_count())
    return replace(receiver, head=head, parts=(), held=held, asked=0, reached=reached)


def wish(receiver: Receiver, window: int, now: float) -> tuple[Receiver, int]:
    """Return what to ask for now: a bitmap, 0 for nothing. At most `window` chunks are ever on their way."""
    if receiver.is_complete:
        return receiver, 0
    outstanding = receiver.asked & receiver.missing
    if outstanding and now >= receiver.due_at():
        again = lowest(outstanding, window)
        return replace(receiver, asked=again, last_at=now, silences=receiver.silences + 1), again
    room = window - outstanding.bit_count()
    if outstanding and room < max(window // 2, 1):
        return receiver, 0
    more = lowest(receiver.missing & ~outstanding, room)
    started = now if not outstanding else receiver.last_at
    return replace(receiver, asked=outstanding | more, last_at=started), more


def excuse(receiver: Receiver, seconds: float) -> Receiver:
    """Leave time out of the silence in which nobody listened."""
    return replace(receiver, last_at=receiver.last_at + seconds)


def _head_part(receiver: Receiver, chunk: Chunk, now: float) -> tuple[Receiver, Outcome]:
    parts = (*receiver.parts[: chunk.index], chunk.data, *receiver.parts[chunk.index + 1 :])
    receiver = _progress(replace(receiver, parts=parts), 1 << chunk.index, now)
    if not all(parts):
        return receiver, Nothing()
    packed = b"".join(parts)
    try:
        head = decode_head(packed, receiver.ref)
    except UnusableHeadError as error:
        return receiver, UnusableHead(str(error))
    except FalseHeadError as error:
        # One part is false and nobody can tell which: all of them are asked for again, after the usual patience.
        return replace(receiver, held=0, asked=full(len(parts)), parts=(b"",) * len(parts)), FalseHead(str(error))
    # The body's chunks are larger than this one: until they set the pace, a slow link gets more patience.
    scaled = receiver.gap_s * receiver.layout.chunk_bytes / max(len(chunk.data), 1)
    gap = min(scaled, receiver.patience.first_s / 2)
    return replace(receiver, gap_s=gap, last_at=now, silences=0), HeadKnown(head, packed)


def _progress(receiver: Receiver, bit: int, now: float) -> Receiver:
    receiver = replace(receiver, held=receiver.held | bit, asked=receiver.asked & ~bit)
    if (reached := receiver.held.bit_count()) <= receiver.reached:
        return receiver
    gap = now - receiver.last_at
    smoothed = gap if receiver.gap_s == 0.0 else 0.75 * receiver.gap_s + 0.25 * gap
    return replace(receiver, last_at=now, gap_s=smoothed, silences=0, reached=reached)
