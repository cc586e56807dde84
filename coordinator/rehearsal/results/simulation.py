"""Rounds without processes and sockets: the learner, plan, strategy and aggregation of live rounds in one process.

The same sites, configuration and initial weights come to the same bytes as live rounds. One learner
serves all sites, so that a framework compiles its model once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError
from common.learning.course import seeded
from common.learning.personal import places
from common.learning.seam import Learner, Site
from common.plan import Training
from common.weights import Spec, Tensor, pack, unpack, update_of
from coordinator.aggregation import Contribution, aggregate
from coordinator.config import CoordinatorConfig


@dataclass(frozen=True)
class Stage:
    """Where a simulation plays: the learner that all sites share, their data by device id, a folder for its files."""

    learner: Learner
    sites: Mapping[str, Site]
    folder: Path


@dataclass(frozen=True)
class Simulated:
    """What a round came to, and the bytes of chunks that live ends would have sent: `down` once for all, `up` by all.

    Chunks of the model that did not change do not travel, nor do those of updates that are zero.
    """

    number: int
    weights: list[Tensor]
    down: int
    up: int


def simulate(config: CoordinatorConfig, stage: Stage, weights: list[Tensor], rounds: int) -> Iterator[Simulated]:
    """Yield each of `rounds` rounds, the first of which begins with `weights`; every site takes part.

    Raises ConfigError where the plan leaves tensors on the devices, WorkError where a training fails.
    """
    spec, folder, chunk_bytes = stage.learner.spec(), stage.folder, config.transfer.chunk_bytes
    folder.mkdir(parents=True, exist_ok=True)
    base, moments = folder / "base", folder / "moments"
    known = b""
    for number in range(1, rounds + 1):
        training = config.training_in(number)
        if places(spec, training):
            raise ConfigError("training: no simulation keeps tensors on devices; leave out personal, batch_norm local")
        packed = pack(spec, weights)
        base.write_bytes(packed)
        updates = [_train(stage, spec, weights, (device, training)) for device in sorted(stage.sites)]
        before = moments if config.strategy.fresh_moments and number > 1 else None
        blocks = list(aggregate(base, updates, spec, config.strategy, before).blocks)
        moments.write_bytes(b"".join(block.moments for block in blocks))
        weights = unpack(spec, b"".join(block.model for block in blocks))
        up = sum(_changed(bytes(len(packed)), update.path.read_bytes(), chunk_bytes) for update in updates)
        yield Simulated(number, weights, _changed(known, packed, chunk_bytes), up)
        known = packed


def _train(stage: Stage, spec: Spec, base: list[Tensor], invited: tuple[str, Training]) -> Contribution:
    """Train as a device does, and store its update as the coordinator does."""
    device, training = invited
    trained = stage.learner.train(base, stage.sites[device], seeded(training, device), lambda *_: None)
    path = stage.folder / f"{device}.update"
    path.write_bytes(pack(spec, list(map(update_of, base, trained.weights))))
    return Contribution(device, path, trained.num_examples)


def _changed(before: bytes, after: bytes, chunk_bytes: int) -> int:
    """Count the bytes of the chunks of `after` that differ from those of `before`."""
    pieces = (slice(start, start + chunk_bytes) for start in range(0, len(after), chunk_bytes))
    return sum(len(after[piece]) for piece in pieces if after[piece] != before[piece])
