"""The trimmed mean: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates" (2018).

Algorithm 1, option II.
"""

import math
from collections.abc import Iterable
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from common.weights import Tensor
from coordinator.strategies.mean import Mean
from coordinator.strategies.median import in_order
from coordinator.strategies.strategy import Matrix, Vector, weighted_mean

ROUNDING = 1e-9
"""So that 0.29 of 100 are 29, not 28."""


class TrimmedMean(Mean, frozen=True, tag="trimmed_mean"):
    """Weight by weight the mean of the updates without the `trim` share of the largest, and of the smallest."""

    has_stack: ClassVar[bool] = True

    trim: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.2

    @property
    def least_updates(self) -> int:
        """Return how many it takes to cut one off at each end."""
        return math.ceil(1 / self.trim - ROUNDING)

    def combine(self, updates: Iterable[Tensor], weights: Vector, scratch: Matrix) -> Vector:
        """Return the mean of what is left, summed from the smallest to the largest."""
        cut = math.floor(self.trim * weights.size + ROUNDING)
        kept = in_order(updates)[cut : weights.size - cut]
        return weighted_mean(kept, np.ones(len(kept)), scratch)
