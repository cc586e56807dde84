"""The median: Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates" (2018).

Algorithm 1, option I.
"""

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from common.weights import Tensor
from coordinator.strategies.mean import Mean
from coordinator.strategies.strategy import Matrix, Vector, weighted_mean


class Median(Mean, frozen=True, tag="median"):
    """Weight by weight the middle update; of an even number the mean of the two in the middle."""

    has_stack: ClassVar[bool] = True

    def combine(self, updates: Iterable[Tensor], weights: Vector, scratch: Matrix) -> Vector:
        """Return the median over the updates."""
        ordered = in_order(updates)
        two = ordered[[(weights.size - 1) // 2, weights.size // 2]]
        return weighted_mean(two, np.ones(2), scratch)


def in_order(updates: Iterable[Tensor]) -> Tensor:
    """Stack the updates `[n, v]`, each column sorted."""
    stack = np.stack(list(updates))
    stack.sort(axis=0)
    return stack
