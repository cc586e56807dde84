"""Devices with updates to deliver, for the tests of the collector."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.blobs import BlobStore
from common.chunks import from_wire, indexes, layout_of
from common.config import TransferConfig
from common.messages import Chunk, Offer, Want
from common.weights import Spec, TensorSpec, pack
from coordinator.collector import Collector
from coordinator.events import Delivered, Rejected

CHUNK = 4096
SPEC: Spec = (TensorSpec("kernel", (10, CHUNK // 4), "float32"), TensorSpec("bias", (7,), "float32"))
TRANSFER = TransferConfig(credit_chunks=8, repair_s=2.0, repair_max_s=30.0)
ROUND = 5


@dataclass
class Device:
    """A device with an update to deliver."""

    name: str
    blobs: BlobStore
    offer: Offer
    data: bytes

    def answer(self, want: Want) -> list[Chunk]:
        layout = layout_of(self.offer.update)
        return [self.chunk(index) for index in indexes(from_wire(want.chunks, layout.total))]

    def chunk(self, index: int) -> Chunk:
        ref = self.offer.update
        return Chunk(blob=ref.id, index=index, data=self.blobs.read(ref, layout_of(ref), index))


def device(tmp_path: Path, name: str = "pi", *, spec: Spec | None = SPEC, bad: float = 0.5, seed: int = 1) -> Device:
    blobs, draft = BlobStore(tmp_path / f"device-{name}"), tmp_path / "draft"
    rng = np.random.Generator(np.random.PCG64(seed))
    tensors = [rng.random(t.shape, np.float32) for t in SPEC]
    tensors[1][3] = bad
    data = pack(SPEC, tensors)
    draft.write_bytes(data)
    ref = blobs.add(draft, spec, CHUNK)
    return Device(
        name, blobs, Offer(device=name, round=ROUND, generation="aa", plan="0" * 64, update=ref, num_examples=3), data
    )


def collector(tmp_path: Path) -> Collector:
    """A coordinator's collector, as after each start of its process."""
    return Collector(tmp_path / "updates", TRANSFER)


def deliver(made: Collector, sender: Device, *, limit: int = 10**6) -> object:
    """Carry what is asked for, at most `limit` chunks; returns the verdict, if there is one."""
    verdict: object = made.begin(sender.offer, SPEC, 0.0)
    now = 0.0
    while not isinstance(verdict, Delivered | Rejected):
        now += 1.0
        for want in made.wishes(now, sender.name):
            for chunk in sender.answer(want):
                if limit == 0:
                    return None
                limit -= 1
                verdict = made.take(sender.name, chunk, SPEC, now)
    return verdict


def bits_of(want: Want) -> int:
    return int.from_bytes(want.chunks, "little").bit_count()
