"""FedProx: Li et al., "Federated Optimization in Heterogeneous Networks" (2020), algorithm 2.

Its term is the devices' affair: `training.proximal_mu`, which goes with any other strategy too.
"""

from coordinator.strategies.strategy import Strategy


class FedProx(Strategy, frozen=True, tag="fedprox"):
    """FedAvg of updates that were trained with the proximal term."""
