"""How a round's updates become the next global model. Pure."""

import msgspec

from common.messages import Ref
from coordinator.strategies.catalogue import AnyStrategy
from coordinator.strategies.fedavg import FedAvg

VALIDATION = "global_validation_"
"""How metrics of the global model begin that devices take on training images which they hold out."""


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """The strategy, what it remembered before the round and remembers after it, and what tells the best model."""

    strategy: AnyStrategy = FedAvg()
    best_by: str = f"{VALIDATION}loss"
    """Metric by which global models are compared: the highest is the best, of a loss the lowest."""
    moments: Ref | None = None
    next_moments: Ref | None = None
