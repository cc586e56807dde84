"""What FedAdam, FedYogi and FedAdagrad share: Reddi et al., "Adaptive Federated Optimization" (2021), algorithm 2.

    m = beta1 * m + (1 - beta1) * update;  v = by strategy;  w = w + server_learning_rate * m / (sqrt(v) + tau)

The update is weighted as in FedAvg. As in the paper v begins at tau^2 and nothing corrects for the start.
"""

from typing import Annotated

import msgspec
import numpy as np

from coordinator.strategies.fedavgm import Decay, Rate
from coordinator.strategies.strategy import Matrix, Strategy, Vector

Tau = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Adaptive(Strategy, frozen=True):
    """A step of its own size for every weight: about `server_learning_rate`, less where updates stay below `tau`."""

    server_learning_rate: Rate = 0.01
    beta1: Decay = 0.9
    tau: Tau = 1e-3

    @property
    def fresh_moments(self) -> tuple[float, ...]:
        """Remember m, from 0, and v, from tau^2."""
        return (0.0, self.tau**2)

    def advance(self, update: Vector, moments: Matrix) -> tuple[Vector, Matrix]:
        """Take the step."""
        first = self.beta1 * moments[0] + (1 - self.beta1) * update
        second = self.second_moment(moments[1], update * update)
        move = self.server_learning_rate * first / (np.sqrt(second) + self.tau)
        return move, np.stack([first, second])

    def second_moment(self, before: Vector, square: Vector) -> Vector:
        """Return v `[v]` from what it was and the squared update."""
        raise NotImplementedError
