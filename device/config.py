"""The device's configuration file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from common.config import (
    BrokerConfig,
    Config,
    DataConfig,
    FilePath,
    Folders,
    PositiveSeconds,
    SigningConfig,
    TransferConfig,
    load,
)
from common.errors import ConfigError
from common.limits import CHUNK_LEAST
from common.messages import MAX_ABILITIES, MAX_LABEL, DeviceId
from common.plan import abilities
from common.python import extend_path

MAX_NAMES = CHUNK_LEAST // 2
"""Bytes of the names of all models of one's own: a Hello names each of them, and must fit any broker's packets."""


class TrainerConfig(Config, frozen=True):
    """Limits of the training process."""

    memory_mb: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] | None = None
    """Resident memory at which a training is ended and reported as failed; none by default."""
    keep_warm_s: Annotated[float, msgspec.Meta(ge=0, le=1e7)] = 900.0
    """How long the process waits for the next round before it gives its memory back."""
    niceness: Annotated[int, msgspec.Meta(ge=0, le=19)] = 5
    """Serving comes before training."""


class ServingConfig(Config, frozen=True):
    """How the release is served. `child`: by a process of the daemon's; `off`: not, or by a service of its own."""

    process: Literal["child", "off"] = "child"
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    max_image_bytes: Annotated[int, msgspec.Meta(ge=1024, le=2**26)] = 2**24


class HealthConfig(Config, frozen=True):
    """When the device sits rounds out; null: never for that reason. A training that runs is never ended by it."""

    period_s: PositiveSeconds = 15.0
    """How often it is read."""
    max_temperature_c: Annotated[float, msgspec.Meta(ge=0, le=200)] | None = 80.0
    """Where a Raspberry Pi begins to slow its processor down."""
    min_memory_mb: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = 200
    min_disk_mb: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)] | None = 200
    sit_out_when_throttled: bool = True
    """Also while the voltage is too low."""


class SessionConfig(Config, frozen=True):
    """When a device says again what the coordinator has not answered."""

    repeat_s: PositiveSeconds = 3.0
    """The first time; every further one doubles it, up to `repeat_max_s`."""
    repeat_max_s: PositiveSeconds = 60.0
    wanted_s: PositiveSeconds = 10.0
    """Silence after a Want that an Offer is said into again: whoever was shut out meanwhile learns of it."""


class DeviceConfig(Config, frozen=True):
    """The whole file. `state` is the folder of models, updates and the release."""

    federation: DeviceId
    device: DeviceId
    state: FilePath
    broker: BrokerConfig = BrokerConfig()
    signing: SigningConfig | None = None
    data: DataConfig = DataConfig()
    models: dict[str, str] = {}  # noqa: RUF012 - msgspec copies defaults
    """Models of your own that the coordinator may name, each as `package.module:function`."""
    python_path: Folders = ()
    """Folders of your own modules, which `models` and `data.loader` name; `read_config` adds them to sys.path."""
    trainer: TrainerConfig = TrainerConfig()
    serving: ServingConfig = ServingConfig()
    health: HealthConfig = HealthConfig()
    session: SessionConfig = SessionConfig()
    transfer: TransferConfig = TransferConfig()

    @property
    def folder(self) -> Path:
        """The state folder."""
        return Path(self.state)


def read_config(path: Path) -> DeviceConfig:
    """Read and check the file; raises ConfigError."""
    config = load(path, DeviceConfig)
    extend_path(config.python_path)
    _check_models(path, config.models)
    return config


def _check_models(path: Path, models: Mapping[str, str]) -> None:
    """Raise ConfigError for models of one's own that no plan can name, or no Hello."""
    for name in models:
        if not (0 < len(name) <= MAX_LABEL and name.isprintable()):
            raise ConfigError(
                f"{path}: models: the name {name[:40]!r} has {len(name)} characters; a coordinator can name a model by"
                f" 1 to {MAX_LABEL} printable ones: rename it here and there"
            )
    room = MAX_ABILITIES - len(abilities(()))
    if len(models) > room:
        raise ConfigError(f"{path}: models: there are {len(models)}; a device can offer {room}: drop some")
    size = sum(len(name.encode()) for name in models)
    if size > MAX_NAMES:
        raise ConfigError(
            f"{path}: models: the names have {size} bytes together, {MAX_NAMES} at most are sent to a coordinator:"
            " shorten them here and there, or drop what no round names"
        )
