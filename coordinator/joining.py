"""`fedpi-coordinator join`: installs a monitor's identity, so that `watch` works from any machine."""

from pathlib import Path

from common.bundle import MONITOR, Identity, is_vouched_for, read_bundle
from common.config import convert
from common.errors import ConfigError
from common.files import make_folder
from common.sections import update, updated
from common.yaml_text import parse
from coordinator.config import WatchConfig


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
    kept = {"federation", "broker"} if is_vouched_for(bundle) else set()
    sections = {key: value for key, value in identity.sections(bundle).items() if key in kept}
    # All is looked at before anything is replaced.
    convert(parse(updated(config, sections), str(config)).plain, WatchConfig, str(config))
    make_folder(folder, mode=0o755)
    identity.install(bundle)
    update(config, sections)
    return config
