"""The coordinator's configuration file."""

from pathlib import Path
from typing import Literal

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
from common.messages import DeviceId, Label, Ref
from common.plan import BatchSize, Epochs, LearningRate, ModelChoice, RoundPlan, Training
from common.python import extend_path
from coordinator.method import VALIDATION, Method
from coordinator.options import RoundOptions
from coordinator.schedule import Constant, Schedule, learning_rate
from coordinator.strategies.catalogue import AnyStrategy
from coordinator.strategies.fedavg import FedAvg
from coordinator.strategies.fedprox import FedProx


class TrainingConfig(Training, frozen=True):
    """What a device trains in a round, and how that changes from round to round."""

    schedule: Schedule = Constant()
    """How the learning rate changes."""


class InitialConfig(Config, frozen=True):
    """Where the first global model comes from: trained on `data`, read from `file`, or random (pretrained if named)."""

    source: Literal["train", "file", "random"] = "random"
    file: FilePath | None = None
    epochs: Epochs = 20
    batch_size: BatchSize = Training().batch_size
    learning_rate: LearningRate = Training().learning_rate


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
    round: RoundOptions = RoundOptions()
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

    def method(self, moments: Ref | None) -> Method:
        """Return how a round's updates are combined, where the strategy remembers `moments`."""
        return Method(strategy=self.strategy, best_by=self.best_by, moments=moments)

    def training_in(self, number: int) -> Training:
        """Return what devices train in round `number`."""
        options = {name: getattr(self.training, name) for name in Training.__struct_fields__}
        options["seed"] += number
        options["learning_rate"] = learning_rate(self.training.schedule, self.training.learning_rate, number)
        return Training(**options)

    def plan(self, number: int, generation: str, base: Ref) -> RoundPlan:
        """Return the plan of round `number` of a `generation`, from the global model `base`."""
        return RoundPlan(
            round=number,
            generation=generation,
            base=base,
            model=self.model,
            labels=self.data.label_names,
            training=self.training_in(number),
            deadline_s=self.round.deadline_s,
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
