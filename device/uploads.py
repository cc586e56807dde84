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

    def offer(self, ref: Ref | None) -> None:
        """Serve `ref` from now on, or nothing."""
        self._source = None if ref is None else (ref, layout_of(ref))
        self._queued = 0

    def ask(self, want: Want) -> bool:
        """Queue the chunks that the coordinator wants; False for a blob that is not served."""
        if self._source is None or want.blob != self._source[0].id:
            return False
        self._queued |= from_wire(want.chunks, self._source[1].total)
        return True

    def forget(self) -> None:
        """Drop the queue: the connection is a new one, and the coordinator asks again."""
        self._queued = 0

    def publish(self) -> None:
        """Publish queued chunks while there is room."""
        if self._source is None or not self._queued:
            return
        ref, layout = self._source
        chosen = lowest(self._queued, self._bulk.room())
        self._queued &= ~chosen
        for index in indexes(chosen):
            self._bulk.publish(
                self._name, encode(Chunk(blob=ref.id, index=index, data=self._blobs.read(ref, layout, index)))
            )
