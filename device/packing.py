"""The update of a training that is over, and the offer of it, on the disk."""

import threading

from common.chunks import decode_head, layout_of, ref_of
from common.limits import Limits
from common.messages import Offer
from device.jobs import Done
from device.session import Task
from device.store import DeviceStore


def pack_update(store: DeviceStore, device: str, task: Task, done: Done, limits: Limits) -> Offer:
    """Cut the update that the trainer wrote into chunks that `limits` allow, and keep it with its offer.

    Raises WorkError where the disk fails, PeerError where so small chunks are more than the protocol has.
    """
    assert task.plan is not None  # noqa: S101 - only an invited device trains
    base = task.plan.base
    packed = store.models.packed_head(base.id)
    spec = decode_head(packed, ref_of(packed)).spec
    update = store.updates.add(store.update_draft, spec, limits.chunk_bytes(base.chunk_bytes), is_durable=False)
    layout_of(update)  # a broker of small packets may need more chunks than the protocol has
    offer = Offer(
        device=device,
        round=task.round,
        generation=task.generation,
        plan=task.digest,
        update=update,
        num_examples=done.num_examples,
        metrics=done.metrics,
    )
    store.keep_offer(offer)
    # Beside the delivery, not before it: on an SD card this takes as long as sending does.
    threading.Thread(target=store.secure, args=(offer,), name="secure", daemon=True).start()
    return offer
