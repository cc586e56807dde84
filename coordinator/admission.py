"""The one gate that an update passes before it counts; each check answers with a sentence or None.

In the order in which the facts arrive: the offer, the head, the bytes.
"""

import math
import os
from pathlib import Path

import numpy as np

from common.chunks import DIGEST_BYTES, MAX_CHUNKS, Head, Layout
from common.messages import Offer, Ref
from common.weights import Spec, Tensor, difference, segments
from coordinator.options import RoundOptions

BLOCK_BYTES = 2**18


def refuse_offer(offer: Offer, plan: str, base: Ref, options: RoundOptions) -> str | None:
    """Check what the device claims: the digest of the plan that it trained by, sizes, number of examples."""
    if offer.plan != plan:
        return f"the update was trained by plan {offer.plan[:8]}, the round's is {plan[:8]}"
    if (reason := _refuse_sizes(offer.update, base)) is not None:
        return reason
    if offer.num_examples > options.max_examples:
        return f"{offer.num_examples} examples are more than the {options.max_examples} that one device may claim"
    return None


def _refuse_sizes(update: Ref, base: Ref) -> str | None:
    if update.size != base.size:
        return f"the update has {update.size} bytes where the global model has {base.size}"
    if update.chunk_bytes > base.chunk_bytes:
        return f"the update's chunks have {update.chunk_bytes} bytes; at most {base.chunk_bytes} fit this broker"
    if (chunks := Layout(update.head_bytes, update.size, update.chunk_bytes).total) > MAX_CHUNKS:
        return f"the update travels in {chunks} chunks; the protocol's limit is {MAX_CHUNKS}"
    if update.head_bytes > (most := most_head_bytes(base, update.chunk_bytes)):
        return f"the update's head has {update.head_bytes} bytes; at most {most} are needed for this model"
    return None


def most_head_bytes(base: Ref, chunk_bytes: int) -> int:
    """Return how many bytes the head of an update to `base` has at most: a digest a chunk, and the tensors.

    The rest may take twice what it takes in the head of `base`: msgpack has longer forms of the same numbers.
    """
    rest = base.head_bytes - DIGEST_BYTES * -(-base.size // base.chunk_bytes)
    return DIGEST_BYTES * -(-base.size // chunk_bytes) + 2 * max(rest, 0)


def refuse_head(head: Head, spec: Spec) -> str | None:
    """Check names, shapes and dtypes against the global model's."""
    if head.spec is None:
        return "the update says nothing of its tensors"
    return difference(spec, head.spec)


def refuse_body(path: Path, spec: Spec, max_norm: float = 0.0) -> str | None:
    """Check that every number is finite and that the L2 norm of the whole is at most `max_norm`, unless that is 0.

    Reads the file in blocks.
    """
    squares, block = 0.0, bytearray(BLOCK_BYTES)
    with path.open("rb") as file:
        for segment in segments(spec, BLOCK_BYTES):
            room = memoryview(block)[: segment.nbytes]
            read = os.preadv(file.fileno(), [room], segment.offset)
            values = np.frombuffer(room[:read], segment.dtype)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                name = _tensor_at(spec, segment.offset + _first_bad(values))
                return f"tensor {name!r} holds a number that is not finite"
            if max_norm:
                wide = values.astype(np.float64)
                squares += float(wide @ wide)
    norm = math.sqrt(squares)
    if norm > max_norm > 0:
        return f"the update's norm is {norm:.6g}; at most {max_norm:.6g} is admitted"
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
