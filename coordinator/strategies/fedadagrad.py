"""FedAdagrad: Reddi et al., "Adaptive Federated Optimization" (2021), algorithm 2."""

from coordinator.strategies.adaptive import Adaptive
from coordinator.strategies.fedavgm import Decay
from coordinator.strategies.strategy import Vector


class FedAdagrad(Adaptive, frozen=True, tag="fedadagrad"):
    """v = v + update^2: steps only ever get smaller. As in the paper's experiments, without momentum."""

    beta1: Decay = 0.0

    def second_moment(self, before: Vector, square: Vector) -> Vector:
        """Forget nothing."""
        return before + square
