"""The one gate that an update passes before it counts; each check answers with a sentence or None.

In the order in which the facts arrive: the offer, the head, the bytes.
"""

import math
import os
from pathlib import Path

import msgspec
import numpy as np

from common.chunks import MAX_CHUNKS, Head, Layout
from common.messages import Offer, Ref
from common.weights import Spec, Tensor, difference, segments

BLOCK_BYTES = 2**18


class Limits(msgspec.Struct, frozen=True):
    """Bounds on what one device may claim."""

    max_examples: int = 1_000_000
    max_offers: int = 16
    """Different updates of a device in one round: one it is, and one more for each time that it trains anew."""
    max_update_norm: float = 0.0
    """Largest L2 norm of an update, over all its tensors together; 0: any."""


NO_LIMITS = Limits()


def refuse_offer(offer: Offer, base: Ref, limits: Limits) -> str | None:
    """Check what the device claims: base model, size, number of examples."""
    layout = Layout(offer.update.head_bytes, offer.update.size, offer.update.chunk_bytes)
    if offer.base != base.id:
        return f"the update starts from model {offer.base[:8]}, the round from {base.id[:8]}"
    if offer.update.size != base.size:
        return f"the update has {offer.update.size} bytes where the global model has {base.size}"
    if offer.update.chunk_bytes > base.chunk_bytes:
        return f"the update's chunks have {offer.update.chunk_bytes} bytes; at most {base.chunk_bytes} fit this broker"
    if (chunks := layout.total) > MAX_CHUNKS:
        return f"the update travels in {chunks} chunks; the protocol's limit is {MAX_CHUNKS}"
    if offer.num_examples > limits.max_examples:
        return f"{offer.num_examples} examples are more than the {limits.max_examples} that one device may claim"
    return None


def refuse_head(head: Head, spec: Spec) -> str | None:
    """Check names, shapes and dtypes against the global model's."""
    if head.spec is None:
        return "the update says nothing of its tensors"
    return difference(spec, head.spec)


def refuse_body(path: Path, spec: Spec, limits: Limits = NO_LIMITS) -> str | None:
    """Check that every number is finite and the whole not too long; reads the file in blocks."""
    squares, block = 0.0, bytearray(BLOCK_BYTES)
    with path.open("rb") as file:
        for segment in segments(spec, BLOCK_BYTES):
            room = memoryview(block)[: segment.nbytes]
            read = os.preadv(file.fileno(), [room], segment.offset)
            values = np.frombuffer(room[:read], segment.dtype)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                name = _tensor_at(spec, segment.offset + _first_bad(values))
                return f"tensor {name!r} holds a number that is not finite"
            if limits.max_update_norm:
                wide = values.astype(np.float64)
                squares += float(wide @ wide)
    norm = math.sqrt(squares)
    if norm > limits.max_update_norm > 0:
        return f"the update's norm is {norm:.6g}; at most {limits.max_update_norm:.6g} is admitted"
    return None


def _first_bad(values: Tensor) -> int:
    return int(np.flatnonzero(~np.isfinite(values))[0]) * values.itemsize


def _tensor_at(spec: Spec, offset: int) -> str:
    end = 0
    for tensor in spec:
        end += tensor.nbytes
        if offset < end:
            return tensor.name
    return ""
