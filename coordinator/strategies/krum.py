"""Krum: Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent" (2017)."""

from typing import Annotated, ClassVar

import msgspec
import numpy as np

from common.weights import Tensor
from coordinator.strategies.strategy import Matrix, Strategy, Vector


class Krum(Strategy, frozen=True, tag="krum"):
    """The one update whose n - byzantine - 2 nearest neighbours are nearest; `byzantine` devices may be false."""

    has_distances: ClassVar[bool] = True

    byzantine: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 1

    @property
    def least_updates(self) -> int:
        """Return the fewest for which the paper's proposition 2 holds."""
        return 2 * self.byzantine + 3

    def weigh(self, examples: Vector, distances: Matrix) -> Vector:
        """Return 1 for those that are kept, 0 for the others."""
        weights = np.zeros_like(examples)
        weights[nearest(distances, self.byzantine)[: self.keeps(examples.size)]] = 1.0
        return weights

    def keeps(self, updates: int) -> int:
        """Return how many of so many updates are kept."""
        del updates
        return 1


def nearest(distances: Matrix, byzantine: int) -> list[int]:
    """Return the updates' places from the best score to the worst; the first of equals comes first.

    A score is the sum of the squared distances to the n - byzantine - 2 nearest others.
    """
    count = len(distances)
    others = np.sort(distances[~np.eye(count, dtype=bool)].reshape(count, count - 1), axis=1)
    scores = others[:, : count - byzantine - 2].sum(axis=1)
    return [int(place) for place in np.argsort(scores, kind="stable")]


def squared_distances(updates: Tensor) -> Matrix:
    """Return the updates' squared distances from each other `[n, n]` over a block `[n, v]`; blocks add up."""
    distances = np.zeros((len(updates), len(updates)))
    for place in range(len(updates) - 1):
        apart = np.subtract(updates[place + 1 :], updates[place], dtype=np.float64)
        distances[place, place + 1 :] = np.einsum("ij,ij->i", apart, apart)
    return distances + distances.T
