"""The device's update on its way to the coordinator: what was asked for, never more than a window at a time."""

from common.blobs import BlobStore
from common.chunks import Layout, from_wire, indexes, layout_of, lowest
from common.link import Link
from common.messages import Chunk, Ref, Want, encode
from common.topics import Kind, topic


class Upload:
    """Serves the chunks of one blob. The receiver drives: nothing is sent that it did not ask for."""

    def __init__(self, device: str, federation: str, blobs: BlobStore, bulk: Link) -> None:
        self._name = topic(Kind.DEV_UP, federation, device=device)
        self._blobs = blobs
        self._bulk = bulk
        self._source: tuple[Ref, Layout] | None = None
        self._queued = 0
        self._sent: dict[int, int] = {}
        """Chunks that were published on this connection, and the ids of their messages."""

    def offer(self, ref: Ref | None) -> None:
        """Serve `ref` from now on, or nothing."""
        self._source = None if ref is None else (ref, layout_of(ref))
        self.forget()

    def ask(self, want: Want) -> bool:
        """Queue the chunks that the coordinator wants; False for a blob that is not served.

        What the broker has not acknowledged is still on its way over this connection: it is not sent again.
        """
        if self._source is None or want.blob != self._source[0].id:
            return False
        self._queued |= from_wire(want.chunks, self._source[1].total) & ~self._on_its_way()
        return True

    def forget(self) -> None:
        """Drop the queue: the connection is a new one, and the coordinator asks again."""
        self._queued = 0
        self._sent.clear()

    def publish(self) -> None:
        """Publish queued chunks while there is room."""
        if self._source is None or not self._queued:
            return
        ref, layout = self._source
        chosen = lowest(self._queued, self._bulk.room())
        self._queued &= ~chosen
        for index in indexes(chosen):
            chunk = Chunk(blob=ref.id, index=index, data=self._blobs.read(ref, layout, index))
            if (message := self._bulk.publish(self._name, encode(chunk))) is not None:
                self._sent[index] = message

    def _on_its_way(self) -> int:
        """Return a bitmap of the chunks that are published and not acknowledged."""
        self._sent = {index: message for index, message in self._sent.items() if self._bulk.is_under_way(message)}
        return sum(1 << index for index in self._sent)
