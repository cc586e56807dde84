"""The next global model from the stored updates: memory does not grow with model or fleet.

Blocks are computed in float64 in the order of the sorted device ids, so the same updates give the same
bytes whatever order they arrived in. What a block becomes is the strategy's to say.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.weights import Spec
from coordinator.blocks import Block, Sources, blocks, distances
from coordinator.strategies.strategy import Strategy


@dataclass(frozen=True)
class Contribution:
    """One device's stored update and the number of its examples."""

    device: str
    path: Path
    num_examples: float


@dataclass(frozen=True)
class Aggregation:
    """The weight of every device's update, and the blocks, which are computed as they are asked for.

    Who does not ask for all of them closes `blocks`: threads are at work on the next ones.
    """

    weights: dict[str, float]
    blocks: Generator[Block, None, None]


def aggregate(
    base: Path, contributions: Sequence[Contribution], spec: Spec, strategy: Strategy, moments: Path | None = None
) -> Aggregation:
    """Make the next global model of the file `base` and the `moments` that the last aggregation left, if any.

    Raises DataError when a file cannot be read or the model leaves its dtype's range; while blocks are computed, too.
    """
    ordered = sorted(contributions, key=lambda c: c.device)
    examples = np.array([c.num_examples for c in ordered], np.float64)
    apart = distances([c.path for c in ordered], spec) if strategy.has_distances else np.empty((0, 0))
    weights = strategy.weigh(examples, apart)
    counted = [c.path for c, weight in zip(ordered, weights, strict=True) if weight]
    sources = Sources(spec, base, counted, weights[weights != 0], moments)
    return Aggregation(
        {c.device: float(weight) for c, weight in zip(ordered, weights, strict=True)}, blocks(sources, strategy)
    )
