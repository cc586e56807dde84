"""All strategies, as the configuration names them."""

from typing import TypeAlias

from coordinator.strategies.fedadagrad import FedAdagrad
from coordinator.strategies.fedadam import FedAdam
from coordinator.strategies.fedavg import FedAvg
from coordinator.strategies.fedavgm import FedAvgM
from coordinator.strategies.fedprox import FedProx
from coordinator.strategies.fedyogi import FedYogi
from coordinator.strategies.inverse_index import InverseIndex
from coordinator.strategies.krum import Krum
from coordinator.strategies.mean import Mean
from coordinator.strategies.median import Median
from coordinator.strategies.multi_krum import MultiKrum
from coordinator.strategies.trimmed_mean import TrimmedMean

AnyStrategy: TypeAlias = (
    FedAvg
    | FedProx
    | Mean
    | InverseIndex
    | FedAvgM
    | FedAdam
    | FedYogi
    | FedAdagrad
    | Median
    | TrimmedMean
    | Krum
    | MultiKrum
)
