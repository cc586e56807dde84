"""The YAML file of `fedpi-broker`: which broker to run, where, and for whom."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from common.config import BrokerConfig, Config, FilePath, Host, Port
from common.errors import ConfigError
from common.messages import DeviceId

LOOPBACK = "127.0.0.1"


class ServeConfig(Config, frozen=True):
    """What `fedpi-broker run` starts and what `fedpi-broker init` renders."""

    kind: Literal["embedded", "mosquitto"] = "embedded"
    host: Host = LOOPBACK
    """The address to listen on. The embedded broker takes loopback addresses only."""
    port: Port = 1883
    port_311: Port | None = None
    """Embedded only, whose `port` speaks nothing but MQTT 5: the port for 3.1.1, the next one by default."""
    folder: FilePath = "runs/broker"
    """Where `init` renders, and where the broker keeps its state."""
    federation: DeviceId | None = None
    """Mosquitto only: the one federation that devices may take part in; any by default."""
    devices: tuple[DeviceId, ...] = ()
    """Mosquitto only: devices that `init` makes a password for."""
    anonymous: bool = False
    """Mosquitto only, on a loopback address only: no passwords, and no wall between devices."""
    tls: bool | None = None
    """Mosquitto only: certificates in place of passwords. By default as soon as other machines can reach it."""
    names: tuple[Host, ...] = ()
    """TLS only: names and addresses of the broker; devices dial the first. By default this machine's address."""
    days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = 730
    """TLS only: how long a certificate lasts."""
    authority: FilePath | None = None
    """TLS only: folder of the authority's key; `authority` in `folder` by default."""
    coordinator: FilePath | None = None
    """The configuration of the coordinator on this machine, which `init` points at the broker."""

    @property
    def root(self) -> Path:
        """The folder as an absolute path, since brokers resolve relative ones their own way."""
        return Path(self.folder).absolute()

    @property
    def has_tls(self) -> bool:
        """Whether clients need certificates."""
        return not is_loopback(self.host) and not self.anonymous if self.tls is None else self.tls

    @property
    def authority_root(self) -> Path:
        """The authority's folder as an absolute path."""
        return self.root / "authority" if self.authority is None else Path(self.authority).absolute()

    @property
    def second_port(self) -> int:
        """The embedded broker's port for 3.1.1; raises ConfigError where there is no room for one."""
        port = self.port_311 or self.port + 1
        if port == self.port or port > 65_535:
            raise ConfigError(
                f"port_311: {port} cannot be the port for MQTT 3.1.1 beside port {self.port}; choose another"
            )
        return port


class BrokerSection(msgspec.Struct, frozen=True):
    """The `broker` section of any fedpi configuration: what else stands in the file is others' concern."""

    broker: BrokerConfig = BrokerConfig()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may resolve to anything
