"""Weights that fall with a device's place in line, as an early project weighed its clients' models.

No paper: it is kept so that its results can be had again. The first device counts 11 times the second.
"""

import numpy as np

from coordinator.strategies.strategy import Matrix, Strategy, Vector


class InverseIndex(Strategy, frozen=True, tag="inverse_index"):
    """Device `i` weighs 0.1 / (i + 0.1), normalised; `i` counts from 0 in the order of the sorted device ids.

    So another name for a device gives another global model: `mean` has no such quirk.
    """

    def weigh(self, examples: Vector, distances: Matrix) -> Vector:
        """Return the weights, by place alone."""
        del distances
        weights: Vector = 0.1 / (np.arange(examples.size, dtype=np.float64) + 0.1)
        return weights
