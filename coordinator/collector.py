"""Updates on their way in: one transfer a device, and one credit for all of them together."""

import logging
import shutil
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from common.blobs import BlobStore
from common.chunks import Head
from common.config import TransferConfig
from common.errors import PeerError, UnusableHeadError
from common.inflow import Inflow
from common.messages import Chunk, Offer, Want
from common.transfer import Patience
from common.weights import Spec
from coordinator.admission import refuse_body, refuse_head
from coordinator.events import Advanced, Delivered, Rejected
from coordinator.places import Places

log = logging.getLogger(__name__)

ADVANCED_EVERY_S = 1.0
LEAST_WINDOW = 4
"""Devices beyond credit / this wait for a place: a window of one or two would crawl."""


@dataclass
class _Upload:
    offer: Offer
    inflow: Inflow
    blobs: BlobStore
    told_at: float = 0.0
    is_judged: bool = False


class Collector:
    """Receives the updates of a round, each device's into a folder of its own, where the next one replaces it.

    Methods raise WorkError when the disk fails.
    """

    def __init__(self, folder: Path, transfer: TransferConfig, max_update_norm: float = 0.0) -> None:
        self._folder = folder
        self._max_norm = max_update_norm
        self._transfer = transfer
        self._patience = Patience(transfer.repair_s, transfer.repair_max_s)
        self._uploads: dict[str, _Upload] = {}
        self._reached: dict[tuple[str, str], int] = {}
        """How far each update of a device came before the device offered another one."""
        self._places = Places(max(transfer.credit_chunks // LEAST_WINDOW, 1))

    @property
    def is_active(self) -> bool:
        """Whether any update is on its way."""
        return bool(self._uploads)

    def path(self, device: str, update: str) -> Path:
        """Path of a complete update."""
        return self._store(device).body(update)

    def begin(self, offer: Offer, spec: Spec, now: float) -> Delivered | Rejected | None:
        """Start to receive `offer`, or go on; answers at once when it is here already."""
        current = self._uploads.get(offer.device)
        if current is not None and current.offer.update.id == offer.update.id:
            if current.inflow.is_silent:
                current.inflow.ask_again()  # the device is back: what it was asked for is lost
                self._places.enter(offer.device)
            return None
        self._drop(offer.device)
        blobs = self._store(offer.device)
        if blobs.is_intact(offer.update.id):  # an earlier process received it
            return self._judge_held(offer, blobs, spec)
        blobs.keep([offer.update.id])  # what the device offered before takes no disk
        upload = _Upload(offer, Inflow(offer.update, blobs, self._patience, now=now), blobs)
        upload.inflow.expect_again(self._reached.get((offer.device, offer.update.id), 0))
        self._uploads[offer.device] = upload
        self._places.enter(offer.device)
        return self._complete(upload, spec)  # an earlier process may have received all of it

    def take(self, device: str, chunk: Chunk, spec: Spec, now: float) -> Advanced | Delivered | Rejected | None:
        """Take one chunk; raises PeerError for a false one."""
        upload = self._uploads.get(device)
        if upload is None or chunk.blob != upload.offer.update.id:
            raise PeerError(f"{device} sent a chunk of blob {chunk.blob[:8]}, which nobody asked for")
        was_silent, reached = upload.inflow.is_silent, upload.inflow.reached
        try:
            upload.inflow.take(chunk, now)
        except UnusableHeadError as error:
            return self._reject(device, upload.offer, str(error))
        if was_silent and not upload.inflow.is_silent:
            self._places.enter(device)
        if not upload.is_judged and upload.inflow.head is not None:
            upload.is_judged = True
            if (reason := refuse_head(upload.inflow.head, spec)) is not None:
                return self._reject(device, upload.offer, reason)
        if (verdict := self._complete(upload, spec)) is not None:
            return verdict
        if upload.inflow.reached == reached or now - upload.told_at < ADVANCED_EVERY_S:
            return None
        upload.told_at = now
        return Advanced(device=device)

    def received(self) -> dict[str, int]:
        """Bytes that are here of the updates on their way, by device."""
        return {
            name: round(upload.inflow.fraction * upload.offer.update.size) for name, upload in self._uploads.items()
        }

    def has_intact(self, device: str, update: str) -> bool:
        """Whether the update of a device is still here, whole, after a restart."""
        return self._store(device).is_intact(update)

    def wishes(self, now: float, only: str | None = None) -> list[Want]:
        """What to ask for now: of every device that has a place, or of `only` and of those that have just got one.

        The windows of all share one credit.
        """
        got = self._give_places()
        asked = list(self._places.placed)
        if only is not None:
            asked = [device for device in dict.fromkeys([only, *got]) if device in self._places.placed]
        wants: list[Want] = []
        for device in asked:
            inflow = self._uploads[device].inflow
            inflow.window = self._window(inflow)
            if (bits := inflow.wish(now)) is not None:
                wants.append(Want(device=device, blob=inflow.ref.id, chunks=bits))
        return wants

    def offline(self, device: str) -> None:
        """Take it that nothing comes from a device until it is heard of again: its place is free for another."""
        if (upload := self._uploads.get(device)) is not None:
            upload.inflow.assume_silence()
            if self._places.give_up(device):
                log.info("device=%s is offline: its upload gives up its place, and goes on once it is back", device)

    def excuse(self, seconds: float) -> None:
        """Leave time out of every device's silence in which this process did not listen."""
        if seconds <= 0:  # as nearly always, and this is called for every message
            return
        for upload in self._uploads.values():
            upload.inflow.excuse(seconds)

    def end_round(self, cohort: Container[str]) -> None:
        """Forget what is on its way, and delete what came from devices outside of `cohort`."""
        self.close()
        self._reached.clear()
        for path in self._folder.glob("*"):
            if path.stem in cohort:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()

    def close(self) -> None:
        """Close all files; what is here of updates on their way stays."""
        for device in list(self._uploads):
            self._drop(device)

    def _give_places(self) -> list[str]:
        """Hand on what places are free, or held by devices that are silent; returns who has got one."""
        got, gave_up = self._places.give(lambda device: self._uploads[device].inflow.is_silent)
        for device in gave_up:
            log.info("device=%s is silent: its upload gives up its place, and goes on once it is heard of", device)
        return got

    def _window(self, inflow: Inflow) -> int:
        """How many chunks of one device may be on their way: its share of the credit, as far as that is free."""
        placed = [self._uploads[device].inflow for device in self._places.placed]
        lively = [other for other in placed if not other.is_silent]
        if lively and inflow.is_silent:
            return 1  # to see whether it is back
        # Who came first still has a larger window on its way; the newcomer begins with what that leaves.
        others = sum(other.outstanding for other in lively if other is not inflow)
        credit = self._transfer.credit_chunks
        return max(min(credit // len(lively or placed), credit - others), 1)

    def _complete(self, upload: _Upload, spec: Spec) -> Delivered | Rejected | None:
        if not upload.inflow.is_complete or upload.inflow.head is None:
            return None
        upload.inflow.finish()
        self._drop(upload.offer.device)
        return self._judge(upload.offer, upload.blobs, upload.inflow.head, spec)

    def _judge_held(self, offer: Offer, blobs: BlobStore, spec: Spec) -> Delivered | Rejected:
        """Judge an update that is here whole; its offer may still contradict it."""
        try:
            head = blobs.head(offer.update)
        except PeerError as error:
            return self._reject(offer.device, offer, str(error))
        return self._judge(offer, blobs, head, spec)

    def _judge(self, offer: Offer, blobs: BlobStore, head: Head, spec: Spec) -> Delivered | Rejected:
        reason = refuse_head(head, spec) or refuse_body(blobs.body(offer.update.id), spec, self._max_norm)
        if reason is not None:
            return self._reject(offer.device, offer, reason)
        return Delivered(device=offer.device, update=offer.update.id)

    def _reject(self, device: str, offer: Offer, reason: str) -> Rejected:
        self._drop(device)
        self._store(device).keep(())
        return Rejected(device=device, update=offer.update.id, reason=reason)

    def _drop(self, device: str) -> None:
        self._places.leave(device)
        if (upload := self._uploads.pop(device, None)) is not None:
            upload.blobs.close()
            self._reached[device, upload.offer.update.id] = upload.inflow.reached

    def _store(self, device: str) -> BlobStore:
        return BlobStore(self._folder / device, spare=self._folder / f"{device}.spare")
