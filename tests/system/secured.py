"""A live federation behind TLS and signatures, made by what the operators' commands call."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from broker import enrolment, install
from broker.connection import Connection, Session
from broker.settings import ServeConfig
from common.bundle import Bundle, Identity, read_bundle
from common.config import BrokerConfig, convert
from coordinator.rehearsal.federation import FEDERATION, Process
from tests.system.conftest import LiveFederation


class SecuredFederation(LiveFederation):
    """Everybody has a certificate, and signs."""

    def __init__(self, folder: Path, examples: dict[str, int]) -> None:
        super().__init__(folder, examples)
        self.config_of_broker = ServeConfig(
            folder=str(self.folder / "broker"), port=self.port, federation=FEDERATION, tls=True
        )
        install.init(self.config_of_broker)
        sections: Any = enrolment.coordinator_sections(self.config_of_broker)
        self.coordinator = {key: sections[key] for key in ("broker", "signing")}

    def go(self) -> "SecuredFederation":
        """Start everything and wait until it is online."""
        self.begin("mosquitto")
        return self

    def start_coordinator(self, options: Mapping[str, Any] | None = None) -> Process:
        """Start the coordinator with its identity."""
        return super().start_coordinator(None if options is None else {**options, **self.coordinator})

    def add(self, device: str, **options: Any) -> None:
        """Enrol a device and start it for the first time."""
        super().add(device, **self.identity(device), **options)

    def enroll(self, name: str) -> Bundle:
        """Enrol `name`, also again, and install its identity."""
        path = enrolment.enroll(self.config_of_broker, name, self.folder, again=True)
        bundle = read_bundle(path)
        path.unlink()
        self._identity(name).install(bundle)
        return bundle

    def identity(self, name: str) -> dict[str, Any]:
        """Enrol `name`; returns the sections of its configuration."""
        sections: Any = self._identity(name).sections(self.enroll(name))
        return {"broker": {**sections["broker"], "host": "127.0.0.1"}, "signing": sections["signing"]}

    def log_in(self, broker: Any, name: str) -> Connection:
        """Return a bare connection that says whatever its owner likes, with the certificate that `broker` names."""
        return Connection(convert(broker, BrokerConfig, "test"), Session(name, "5"))

    def _identity(self, name: str) -> Identity:
        return Identity(self.folder / "etc" / name, "device")
