"""`fedpi-device join`: installs what `fedpi-broker enroll` made, and points the configuration at it."""

from dataclasses import dataclass
from pathlib import Path

from common.bundle import MONITOR, Bundle, Identity, is_vouched_for, read_bundle
from common.config import convert
from common.errors import ConfigError
from common.files import make_folder
from common.sections import update, updated
from common.yaml_text import parse
from device.config import DeviceConfig

STATE = "/var/lib/fedpi/device"
"""Where a configuration that did not exist before keeps its state."""


@dataclass(frozen=True)
class Joined:
    """What `join` did: the configuration file, and the identity's folder."""

    bundle: Bundle
    config: Path
    folder: Path

    @property
    def is_renewal(self) -> bool:
        """Whether the keys stayed."""
        return self.bundle.key is None


def join(path: Path, config_folder: Path) -> Joined:
    """Install the bundle `path` below `config_folder`; run again it does the same.

    Sections of device.yaml that have nothing to do with it stay. Raises ConfigError, WorkError.
    """
    bundle = read_bundle(path)
    if bundle.name == MONITOR:
        raise ConfigError(f"{path} is that of {MONITOR}, no device; install it with: fedpi-coordinator join")
    folder = config_folder.absolute()
    identity, config = Identity(folder / "device", "device"), folder / "device.yaml"
    identity.check(bundle, str(path))
    sections: dict[str, object] = {}
    if is_vouched_for(bundle):
        sections = {"federation": bundle.federation, "device": bundle.name, **identity.sections(bundle)}
    if not config.exists():
        sections["state"] = STATE
    # All is looked at before anything is replaced; what was in the file before may be wrong, too.
    convert(parse(updated(config, sections), str(config)).plain, DeviceConfig, str(config))
    make_folder(folder, mode=0o755)
    identity.install(bundle)
    update(config, sections)
    return Joined(bundle, config, identity.folder)
