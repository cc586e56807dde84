"""FedYogi: Reddi et al., "Adaptive Federated Optimization" (2021), algorithm 2."""

import numpy as np

from coordinator.strategies.adaptive import Adaptive
from coordinator.strategies.fedavgm import Decay
from coordinator.strategies.strategy import Vector


class FedYogi(Adaptive, frozen=True, tag="fedyogi"):
    """v = v - (1 - beta2) * update^2 * sign(v - update^2): it grows and shrinks by no more than the square."""

    beta2: Decay = 0.99

    def second_moment(self, before: Vector, square: Vector) -> Vector:
        """Step towards the square."""
        return before - (1 - self.beta2) * square * np.sign(before - square)
