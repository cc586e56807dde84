"""Blobs on their way from the coordinator to this device."""

import errno
import logging

from common.blobs import BlobStore
from common.config import TransferConfig
from common.errors import DiskFullError, UnusableHeadError
from common.files import DISK_STATES
from common.inflow import Inflow
from common.link import Link
from common.messages import Chunk, Ref, Want
from common.topics import Kind, topic
from common.transfer import Patience

log = logging.getLogger(__name__)

RETRY_S = 5.0
"""How often a transfer that found the disk full looks whether there is room by now."""
NO_ROOM = DISK_STATES[errno.ENOSPC]


class Downloads:
    """At most a few transfers. While one runs, the device listens to that blob's topic, and to no other.

    One that finds the disk full, read-only or failing waits, and keeps what it has; `trouble` says so until it is
    complete.
    """

    def __init__(self, device: str, federation: str, transfer: TransferConfig, blobs: BlobStore, bulk: Link) -> None:
        self._device = device
        self._federation = federation
        self._transfer = transfer
        self._patience = Patience(transfer.repair_s, transfer.repair_max_s)
        self._blobs = blobs
        self._bulk = bulk
        self._inflows: dict[str, Inflow] = {}
        self._listening: set[str] = set()
        self._waiting: dict[str, Ref] = {}
        self._retry_at = 0.0
        self._state = ""

    @property
    def trouble(self) -> str:
        """Why a transfer does not go on, nothing where all do."""
        return self._state if self._waiting else ""

    def begin(self, ref: Ref, now: float) -> bool:
        """Fetch `ref`; returns True when it is here already. Raises PeerError for a ref that breaks the limits.

        Raises WorkError when the disk fails, except for what may pass.
        """
        if self._blobs.has(ref.id):
            return True
        if ref.id not in self._inflows:
            sources = self._blobs.complete()
            try:
                self._inflows[ref.id] = Inflow(ref, self._blobs, self._patience, now=now, sources=sources)
            except DiskFullError as error:
                self._wait(ref, error, now)
                return False
            self._bulk.subscribe(self._topic(ref.id))
        return self._complete(ref.id, self._inflows[ref.id], now) is not None

    def retry(self, now: float) -> str | None:
        """Go on, now and then, with what found the disk full; returns a blob's id if that completes it."""
        if not self._waiting or now < self._retry_at:
            return None
        self._retry_at = now + RETRY_S
        return next((ref.id for ref in list(self._waiting.values()) if self.begin(ref, now)), None)

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
        try:
            inflow.take(chunk, now)
        except UnusableHeadError:
            self._end(chunk.blob)
            raise
        except DiskFullError as error:
            self._end(chunk.blob)
            self._wait(inflow.ref, error, now)
            return None
        return self._complete(chunk.blob, inflow, now)

    def wishes(self, now: float) -> list[Want]:
        """What to ask for now."""
        wants: list[Want] = []
        for blob, inflow in self._inflows.items():
            inflow.window = self._transfer.window_chunks
            if self._topic(blob) in self._listening and (bits := inflow.wish(now)) is not None:
                wants.append(Want(device=self._device, blob=blob, chunks=bits))
        return wants

    def excuse(self, seconds: float) -> None:
        """Leave time out of the coordinator's silence in which this process did not listen."""
        if seconds <= 0:
            return
        for inflow in self._inflows.values():
            inflow.excuse(seconds)

    def only(self, blobs: set[str]) -> None:
        """End every transfer that is not of one of `blobs`."""
        for blob in self._inflows.keys() - blobs:
            self._end(blob)
        for blob in self._waiting.keys() - blobs:
            del self._waiting[blob]

    def _complete(self, blob: str, inflow: Inflow, now: float) -> str | None:
        if not inflow.is_complete:
            return None
        self._end(blob)
        try:
            inflow.finish()
        except DiskFullError as error:
            self._wait(inflow.ref, error, now)
            return None
        self._waiting.pop(blob, None)
        return blob

    def _wait(self, ref: Ref, error: DiskFullError, now: float) -> None:
        if ref.id not in self._waiting:
            log.warning("cannot keep blob %s of %d bytes: %s", ref.id[:8], ref.size, error)
        self._waiting[ref.id], self._state = ref, error.state
        self._retry_at = now + RETRY_S

    def _end(self, blob: str) -> None:
        del self._inflows[blob]
        self._bulk.unsubscribe(self._topic(blob))
        self._listening.discard(self._topic(blob))

    def _topic(self, blob: str) -> str:
        return topic(Kind.BLOB, self._federation, blob=blob)
