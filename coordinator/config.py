"""The coordinator's configuration file."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from common.config import BrokerConfig, Config, DataConfig, TransferConfig, load
from common.errors import ConfigError
from common.messages import DeviceId, ModelChoice, Plan
from coordinator.admission import Limits
from coordinator.round import Rules

Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
WaitSeconds = Annotated[float, msgspec.Meta(gt=0, le=1e7)]


class TrainingConfig(Config, frozen=True):
    """What a device trains in a round."""

    epochs: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 2
    batch_size: Count = 16
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=100)] = 5e-4
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    evaluate: bool = True


class InitialConfig(Config, frozen=True):
    """Where the first global model comes from: trained on `data`, read from `file`, or random (pretrained if named)."""

    source: Literal["train", "file", "random"] = "random"
    file: str | None = None
    epochs: Count = 20
    batch_size: Count = 16
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=100)] = 5e-4


class RoundConfig(Config, frozen=True):
    """How many devices a round wants (`goal`) and needs (`minimum`), and how long it waits, in seconds."""

    goal: Count = 2
    minimum: Count = 2
    selection_s: WaitSeconds = 120.0
    deadline_s: WaitSeconds = 900.0
    grace_s: WaitSeconds = 30.0
    max_examples: Count = 100_000


class CoordinatorConfig(Config, frozen=True):
    """The whole file. `state` is the folder of the journal and the models."""

    federation: DeviceId
    state: str
    model: ModelChoice
    broker: BrokerConfig = BrokerConfig()
    models: dict[str, str] = {}  # noqa: RUF012 - msgspec copies defaults
    initial: InitialConfig = InitialConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    round: RoundConfig = RoundConfig()
    transfer: TransferConfig = TransferConfig()

    @property
    def folder(self) -> Path:
        """The state folder."""
        return Path(self.state)

    @property
    def journal(self) -> Path:
        """The SQLite file."""
        return self.folder / "journal.sqlite"

    @property
    def global_models(self) -> Path:
        """Folder of the global models' blobs."""
        return self.folder / "models"

    @property
    def releases(self) -> Path:
        """Folder of the releases' blobs: one of its own, because the service tidies the other one up."""
        return self.folder / "releases"

    @property
    def rules(self) -> Rules:
        """What the round's state machine needs of `round`."""
        r = self.round
        return Rules(
            goal=r.goal,
            minimum=r.minimum,
            selection_s=r.selection_s,
            deadline_s=r.deadline_s,
            grace_s=r.grace_s,
        )

    @property
    def limits(self) -> Limits:
        """What admission needs of `round`."""
        return Limits(self.round.max_examples)

    def plan(self, number: int) -> Plan:
        """Return what devices train in round `number`."""
        t = self.training
        return Plan(
            model=self.model,
            epochs=t.epochs,
            batch_size=t.batch_size,
            learning_rate=t.learning_rate,
            seed=t.seed + number,
            deadline_s=self.round.deadline_s,
            evaluate=t.evaluate,
        )


def read_config(path: Path) -> CoordinatorConfig:
    """Read and check the file; raises ConfigError."""
    config = load(path, CoordinatorConfig)
    if config.round.minimum > config.round.goal:
        raise ConfigError(
            f"{path}: round.minimum ({config.round.minimum}) is above round.goal ({config.round.goal}); lower it"
        )
    if config.initial.source == "file" and config.initial.file is None:
        raise ConfigError(f"{path}: initial.source is 'file'; name it in initial.file")
    return config
