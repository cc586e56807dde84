"""What each site comes to without the others: the row that a federation is compared with."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec

from common.weights import Tensor
from coordinator.config import CoordinatorConfig
from coordinator.rehearsal.results.simulation import Stage, simulate
from coordinator.strategies.fedavg import FedAvg


def train_alone(
    config: CoordinatorConfig, stage: Stage, weights: list[Tensor], rounds: int, tell: Callable[[str], None]
) -> Mapping[str, list[Tensor]]:
    """Train every site of `stage` on its own images only, from `weights`, by the plans of as many rounds.

    Each makes as many passes, at the same learning rates, as it made in the federation. Returns the last
    weights by site; `tell` hears of every round. Raises ConfigError and WorkError as `simulate` does.
    """
    alone = msgspec.structs.replace(config, strategy=FedAvg())  # of one update: a site goes on from its own last step
    found = {}
    for name, site in stage.sites.items():
        for done in simulate(alone, replace(stage, sites={name: site}), weights, rounds):
            tell(f"{name}: {done.number} of {rounds}")
            found[name] = done.weights
    return found
