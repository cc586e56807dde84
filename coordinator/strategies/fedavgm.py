"""FedAvgM: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution" (2019), section 4.3."""

from typing import Annotated

import msgspec
import numpy as np

from coordinator.strategies.strategy import Matrix, Strategy, Vector

Rate = Annotated[float, msgspec.Meta(gt=0, le=1000)]
Decay = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class FedAvgM(Strategy, frozen=True, tag="fedavgm"):
    """v = momentum * v + update; w = w + server_learning_rate * v, the update being that of FedAvg."""

    server_learning_rate: Rate = 1.0
    momentum: Decay = 0.9

    @property
    def fresh_moments(self) -> tuple[float, ...]:
        """Remember v, from 0."""
        return (0.0,)

    def advance(self, update: Vector, moments: Matrix) -> tuple[Vector, Matrix]:
        """Roll on."""
        velocity = self.momentum * moments[0] + update
        return self.server_learning_rate * velocity, np.stack([velocity])
