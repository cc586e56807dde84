"""FedAvg: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data" (2017).

Algorithm 1: the mean of the updates, weighted by the devices' numbers of examples.
"""

from coordinator.strategies.strategy import Strategy


class FedAvg(Strategy, frozen=True, tag="fedavg"):
    """Every example counts alike."""
