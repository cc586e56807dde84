"""The coordinator's configuration file."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from common.config import (
    BrokerConfig,
    Config,
    DataConfig,
    FilePath,
    Folders,
    Host,
    Port,
    SigningConfig,
    TransferConfig,
    load,
)
from common.errors import ConfigError
from common.learning.seam import spell
from common.messages import DeviceId, Label, ModelChoice, Pattern, Plan, Ref
from common.python import extend_path
from coordinator.admission import Limits
from coordinator.method import VALIDATION, Method
from coordinator.round import Rules
from coordinator.schedule import Constant, Schedule, learning_rate
from coordinator.strategies.catalogue import AnyStrategy
from coordinator.strategies.fedavg import FedAvg
from coordinator.strategies.fedprox import FedProx

Count = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
WaitSeconds = Annotated[float, msgspec.Meta(gt=0, le=1e7)]


class TrainingConfig(Config, frozen=True):
    """What a device trains in a round: see `common.messages.Plan`, whose fields have the same names."""

    epochs: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 2
    steps: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    batch_size: Count = 16
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=100)] = 5e-4
    schedule: Schedule = Constant()
    """How the learning rate changes from round to round."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**31)] = 0
    evaluate: bool = True
    proximal_mu: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.0
    clip_norm: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    class_weights: bool = False
    batch_norm: Literal["model", "frozen", "averaged", "local"] = "model"
    personal: Annotated[tuple[Pattern, ...], msgspec.Meta(max_length=64)] = ()
    validation_share: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.0
    patience: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0


class InitialConfig(Config, frozen=True):
    """Where the first global model comes from: trained on `data`, read from `file`, or random (pretrained if named)."""

    source: Literal["train", "file", "random"] = "random"
    file: FilePath | None = None
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
    max_update_norm: Annotated[float, msgspec.Meta(ge=0, le=1e30)] = 0.0
    max_offers: Count = 16


class MetricsConfig(Config, frozen=True):
    """Where Prometheus finds `/metrics`: nowhere unless `port` is set. It has no password: keep it on loopback."""

    port: Port | None = None
    host: Host = "127.0.0.1"


class HomeAssistantConfig(Config, frozen=True):
    """Whether Home Assistant is told of devices and rounds, as its MQTT discovery wants it."""

    discovery: bool = False


class CoordinatorConfig(Config, frozen=True):
    """The whole file. `state` is the folder of the journal and the models."""

    federation: DeviceId
    state: FilePath
    model: ModelChoice
    broker: BrokerConfig = BrokerConfig()
    signing: SigningConfig | None = None
    models: dict[str, str] = {}  # noqa: RUF012 - msgspec copies defaults
    python_path: Folders = ()
    """Folders of your own modules, which `models` and `data.loader` name; `read_config` adds them to sys.path."""
    initial: InitialConfig = InitialConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    strategy: AnyStrategy = FedAvg()
    best_by: Label = Method().best_by
    """Metric by which the best global model is chosen: `coordinator.method`."""
    round: RoundConfig = RoundConfig()
    transfer: TransferConfig = TransferConfig()
    metrics: MetricsConfig = MetricsConfig()
    home_assistant: HomeAssistantConfig = HomeAssistantConfig()

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
        return Limits(self.round.max_examples, self.round.max_offers, self.round.max_update_norm)

    def method(self, moments: Ref | None) -> Method:
        """Return how a round's updates are combined, where the strategy remembers `moments`."""
        return Method(strategy=self.strategy, best_by=self.best_by, moments=moments)

    def plan(self, number: int) -> Plan:
        """Return what devices train in round `number`."""
        t = self.training
        return Plan(
            model=self.model,
            epochs=t.epochs,
            batch_size=t.batch_size,
            learning_rate=learning_rate(t.schedule, t.learning_rate, number),
            seed=t.seed + number,
            deadline_s=self.round.deadline_s,
            evaluate=t.evaluate,
            steps=t.steps,
            proximal_mu=t.proximal_mu,
            clip_norm=t.clip_norm,
            class_weights=t.class_weights,
            batch_norm=t.batch_norm,
            personal=t.personal,
            validation_share=t.validation_share,
            patience=t.patience,
        )


class WatchConfig(msgspec.Struct, frozen=True):
    """What watching needs of a configuration file: the coordinator's, or the one that `join` wrote for a monitor."""

    federation: DeviceId
    broker: BrokerConfig = BrokerConfig()


def read_config(path: Path) -> CoordinatorConfig:
    """Read and check the file; raises ConfigError."""
    config = load(path, CoordinatorConfig)
    extend_path(config.python_path)
    config = msgspec.structs.replace(config, model=spell(config.model, config.models))
    if config.round.minimum > config.round.goal:
        raise ConfigError(
            f"{path}: round.minimum ({config.round.minimum}) is above round.goal ({config.round.goal}); lower it"
        )
    _check_strategy(path, config)
    if config.training.patience and not config.training.validation_share:
        raise ConfigError(f"{path}: training.patience needs a validation share; set training.validation_share")
    if config.initial.source == "file" and config.initial.file is None:
        raise ConfigError(f"{path}: initial.source is 'file'; name it in initial.file")
    return config


def _check_strategy(path: Path, config: CoordinatorConfig) -> None:
    strategy, least = config.strategy, config.strategy.least_updates
    if config.round.minimum < least:
        raise ConfigError(
            f"{path}: with these options {strategy.title} needs at least {least} updates, round.minimum is"
            f" {config.round.minimum}; raise it, or change 'strategy'"
        )
    if isinstance(strategy, FedProx) and not config.training.proximal_mu:
        raise ConfigError(f"{path}: fedprox needs its proximal term; set training.proximal_mu, 0.01 to begin with")
    if not config.best_by.startswith(VALIDATION):
        raise ConfigError(
            f"{path}: best_by is {config.best_by!r}; only validation metrics ({VALIDATION}...) may choose the best"
            " model: the held back images would no longer tell how good it is"
        )
