"""FedAdam: Reddi et al., "Adaptive Federated Optimization" (2021), algorithm 2."""

from coordinator.strategies.adaptive import Adaptive
from coordinator.strategies.fedavgm import Decay
from coordinator.strategies.strategy import Vector


class FedAdam(Adaptive, frozen=True, tag="fedadam"):
    """v = beta2 * v + (1 - beta2) * update^2."""

    beta2: Decay = 0.99

    def second_moment(self, before: Vector, square: Vector) -> Vector:
        """Forget at an even pace."""
        return self.beta2 * before + (1 - self.beta2) * square
