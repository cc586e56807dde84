"""A blob on its way to this process's disk: the pure receiver of `transfer`, bound to its files."""

from collections.abc import Iterable

from msgspec.structs import replace

from common.blobs import BlobStore
from common.chunks import Head, to_wire
from common.errors import DataError, PeerError, UnusableHeadError
from common.messages import Chunk, Ref
from common.transfer import FalseHead, HeadKnown, Patience, Stored, UnusableHead, adopt, excuse, on_chunk, receive, wish


class Inflow:
    """One transfer. Methods raise WorkError when the disk fails, PeerError for what the peer did wrong."""

    def __init__(
        self, ref: Ref, blobs: BlobStore, patience: Patience, *, now: float, sources: Iterable[str] = ()
    ) -> None:
        self.ref = ref
        self.window = 1
        self._blobs = blobs
        self._sources = tuple(sources)
        self._receiver = receive(ref, patience, now)
        self._resume()

    @property
    def head(self) -> Head | None:
        """The head, once it is here."""
        return self._receiver.head

    @property
    def is_complete(self) -> bool:
        """Whether every chunk is on disk."""
        return self._receiver.is_complete

    @property
    def fraction(self) -> float:
        """Share of the chunks that are here."""
        return self._receiver.held.bit_count() / max(self._receiver.layout.total, 1)

    @property
    def outstanding(self) -> int:
        """Chunks that were asked for and are not here."""
        return (self._receiver.asked & self._receiver.missing).bit_count()

    @property
    def repeated(self) -> int:
        """Chunks that came although they were here already."""
        return self._receiver.repeated

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come since the last time that it was asked for again."""
        return self._receiver.silences > 0

    @property
    def reached(self) -> int:
        """Most chunks that were here at a time: more of them is progress, others in their place are none."""
        return self._receiver.reached

    def expect_again(self, reached: int) -> None:
        """Take it that so many chunks were here before, so that their coming again is no progress."""
        self._receiver = replace(self._receiver, reached=max(self._receiver.reached, reached))

    def take(self, chunk: Chunk, now: float) -> None:
        """Verify and keep one chunk. Raises UnusableHeadError where the blob can never become complete."""
        self._receiver, outcome = on_chunk(self._receiver, chunk, now)
        match outcome:
            case Stored(offset, data):
                self._blobs.write(self.ref, offset, data)
            case HeadKnown(head, packed):
                self._adopt(head, packed)
            case FalseHead(reason):
                raise PeerError(reason)
            case UnusableHead(reason):
                raise UnusableHeadError(reason)

    def wish(self, now: float) -> bytes | None:
        """Return the bitmap to ask for now, if any."""
        self._receiver, bits = wish(self._receiver, self.window, now)
        return to_wire(bits) if bits else None

    def ask_again(self) -> None:
        """Take it that what was asked for is lost: the sender, or the connection to it, is a new one."""
        self._receiver = replace(self._receiver, asked=0, silences=0)

    def assume_silence(self) -> None:
        """Take it that nothing comes for now: the sender is offline. Whatever comes ends the silence."""
        self._receiver = replace(self._receiver, silences=max(self._receiver.silences, 1))

    def excuse(self, seconds: float) -> None:
        """Take it that the sender was not silent for so long: this process did not listen."""
        self._receiver = excuse(self._receiver, seconds)

    def finish(self) -> None:
        """Turn the complete part into a blob."""
        self._blobs.finish(self.ref)

    def _resume(self) -> None:
        """Go on where a transfer stopped before this process started, if its head is still good."""
        if self._blobs.part(self.ref.id).exists():
            try:
                packed, head = self._blobs.packed_head(self.ref.id), self._blobs.head(self.ref)
            except (DataError, PeerError):
                return
            self._adopt(head, packed)

    def _adopt(self, head: Head, packed: bytes) -> None:
        body = self._blobs.prepare(self.ref, head, packed, self._sources)
        self._receiver = adopt(self._receiver, head, body)
