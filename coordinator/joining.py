"""`fedpi-coordinator join`: installs a monitor's identity, so that `watch` works from any machine."""

from pathlib import Path

from common.bundle import MONITOR, Identity, read_bundle
from common.errors import ConfigError
from common.files import make_folder
from common.sections import update


def join(path: Path, config_folder: Path) -> Path:
    """Install the bundle `path` below `config_folder`; returns the configuration for `watch`.

    Raises ConfigError, WorkError.
    """
    bundle = read_bundle(path)
    if bundle.name != MONITOR:
        raise ConfigError(f"{path} is that of {bundle.name}, a device; install it there with: fedpi-device join")
    folder = config_folder.absolute()
    identity, config = Identity(folder / MONITOR, MONITOR), folder / f"{MONITOR}.yaml"
    identity.check(bundle, str(path))
    make_folder(folder, mode=0o755)
    identity.install(bundle)
    sections = identity.sections(bundle)
    update(config, {key: sections[key] for key in ("federation", "broker")})
    return config
