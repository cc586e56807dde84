"""Blobs on their way from the coordinator to this device."""

from common.blobs import BlobStore
from common.config import TransferConfig
from common.inflow import Inflow
from common.link import Link
from common.messages import Chunk, Ref, Want
from common.topics import Kind, topic
from common.transfer import Patience


class Downloads:
    """At most a few transfers. While one runs, the device listens to that blob's topic, and to no other."""

    def __init__(self, device: str, federation: str, transfer: TransferConfig, blobs: BlobStore, bulk: Link) -> None:
        self._device = device
        self._federation = federation
        self._transfer = transfer
        self._patience = Patience(transfer.repair_s, transfer.repair_max_s)
        self._blobs = blobs
        self._bulk = bulk
        self._inflows: dict[str, Inflow] = {}
        self._listening: set[str] = set()

    def begin(self, ref: Ref, now: float) -> bool:
        """Fetch `ref`; returns True when it is here already. Raises PeerError for a ref that breaks the limits."""
        if self._blobs.has(ref.id):
            return True
        if ref.id not in self._inflows:
            sources = self._blobs.complete()
            self._inflows[ref.id] = Inflow(ref, self._blobs, self._patience, now=now, sources=sources)
            self._bulk.subscribe(self._topic(ref.id))
        return self._complete(ref.id, self._inflows[ref.id]) is not None

    def listen(self) -> None:
        """Subscribe again: the connection is a new one."""
        self._listening.clear()
        for blob, inflow in self._inflows.items():
            inflow.ask_again()
            self._bulk.subscribe(self._topic(blob))

    def granted(self, name: str) -> None:
        """Note that the broker granted the subscription to `name`: asking makes sense from now on."""
        self._listening.add(name)

    def take(self, chunk: Chunk, now: float) -> str | None:
        """Take a chunk; returns the blob's id once it is complete. Raises PeerError, WorkError."""
        inflow = self._inflows.get(chunk.blob)
        if inflow is None:
            return None  # published for others, or a straggler of a transfer that is complete
        inflow.take(chunk, now)
        return self._complete(chunk.blob, inflow)

    def wishes(self, now: float) -> list[Want]:
        """What to ask for now."""
        wants: list[Want] = []
        for blob, inflow in self._inflows.items():
            inflow.window = self._transfer.window_chunks
            if self._topic(blob) in self._listening and (bits := inflow.wish(now)) is not None:
                wants.append(Want(device=self._device, blob=blob, chunks=bits))
        return wants

    def only(self, blobs: set[str]) -> None:
        """End every transfer that is not of one of `blobs`."""
        for blob in self._inflows.keys() - blobs:
            self._end(blob)

    def _complete(self, blob: str, inflow: Inflow) -> str | None:
        if not inflow.is_complete:
            return None
        inflow.finish()
        self._end(blob)
        return blob

    def _end(self, blob: str) -> None:
        del self._inflows[blob]
        self._bulk.unsubscribe(self._topic(blob))
        self._listening.discard(self._topic(blob))

    def _topic(self, blob: str) -> str:
        return topic(Kind.BLOB, self._federation, blob=blob)
