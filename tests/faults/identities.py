"""Keys of a federation that signs, made by what `fedpi-broker init`, `enroll` and `fedpi-device join` call.

Only the signatures are used: connections stay plain, so that the proxy can read and break them.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from broker import enrolment, install
from broker.settings import ServeConfig
from common.bundle import Identity, read_bundle
from coordinator.rehearsal.federation import FEDERATION
from tests.faults.passing import COORDINATOR


def make(folder: Path, port: int, devices: Collection[str]) -> dict[str, Any]:
    """Make an authority below `folder`, and an identity for everybody; returns their `signing` sections by name."""
    config = ServeConfig(folder=str(folder / "authority"), port=port, federation=FEDERATION, tls=True)
    install.init(config)
    sections: Any = enrolment.coordinator_sections(config)
    return {COORDINATOR: sections["signing"], **{device: _join(config, folder, device) for device in devices}}


def _join(config: ServeConfig, folder: Path, device: str) -> Any:
    path = enrolment.enroll(config, device, folder)
    bundle, identity = read_bundle(path), Identity(folder / device, "device")
    identity.check(bundle, str(path))
    identity.install(bundle)
    return identity.sections(bundle)["signing"]
