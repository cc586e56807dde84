"""What a round must make of a global model, computed here and at once: no broker, no chunk, no journal.

It shares the learner with the devices, and nothing with `coordinator.aggregation`: the mean is NumPy's over whole
arrays.
"""

from collections.abc import Mapping

import numpy as np
from msgspec.structs import replace

from common.chunks import ChunkHasher, encode_head
from common.config import DataConfig
from common.learning.numpy_learner import no_images
from common.learning.seam import Learner, build
from common.plan import ModelChoice, RoundPlan
from common.weights import pack, unpack


def next_model(base: bytes, plan: RoundPlan, examples: Mapping[str, int]) -> bytes:
    """Return base + sum(n_k u_k) / sum(n_k) over the devices of `examples`, in float32, as section 7.5 has it."""
    total = np.zeros(len(base) // 4)
    for device in sorted(examples):
        total += (
            np.frombuffer(update(base, plan, device, examples[device]), "<f4").astype(np.float64) * examples[device]
        )
    mean = total / float(sum(examples.values()))
    return (np.frombuffer(base, "<f4").astype(np.float64) + mean).astype("<f4").tobytes()


def update(base: bytes, plan: RoundPlan, device: str, count: int) -> bytes:
    """Return the update that `device` must train from `base`: local - base in float32."""
    learner = learner_of(plan.model)
    weights = unpack(learner.spec(), base)
    seed = plan.training.seed * 1_000_003 + int.from_bytes(device.encode(), "big") % 1_000_003
    own = replace(plan.training, seed=seed)
    site = no_images(DataConfig(options={"count": count}), 0)
    trained = learner.train(weights, site, own, lambda *_: None)
    return pack(learner.spec(), [after - before for before, after in zip(weights, trained.weights, strict=True)])


def blob_id(body: bytes, model: ModelChoice, chunk_bytes: int) -> str:
    """Return the id under which weights of `model` travel in chunks of `chunk_bytes`."""
    hasher = ChunkHasher(chunk_bytes)
    hasher.update(body)
    return encode_head(hasher.head(learner_of(model).spec()))[1].id


def learner_of(model: ModelChoice) -> Learner:
    """Build the learner of the federation's model, one that neither sleeps nor fails."""
    return build(replace(model, options={**model.options, "sleep_s": 0.0, "fail": False}), {})
