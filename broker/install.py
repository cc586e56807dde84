"""`fedpi-broker init`: writes Mosquitto's files into one folder, and never over what an operator changed."""

import getpass
from dataclasses import dataclass
from pathlib import Path

from broker import accounts, mosquitto
from broker.settings import ServeConfig
from common.errors import ConfigError, WorkError
from common.files import write_atomic


@dataclass(frozen=True)
class Written:
    """What became of one file: `written`, `kept` (it was there already) or `new password`."""

    path: Path
    state: str


def init(config: ServeConfig, *, force: bool = False, new_passwords: bool = False) -> list[Written]:
    """Render configuration, ACL and passwords into `config.root`; a second run changes nothing.

    `force` replaces files that differ from what would be written, `new_passwords` the passwords of every
    user of `config`. Raises ConfigError before anything is written where a file differs or a name is
    taken, WorkError where the disk refuses.
    """
    root = config.root
    for name in (mosquitto.COORDINATOR, mosquitto.MONITOR):
        if name in config.devices:
            raise ConfigError(f"devices: {name!r} is the user of another role; name the device otherwise")
    texts = {
        root / mosquitto.CONF: mosquitto.render_conf(config, getpass.getuser()),
        root / mosquitto.ACL: mosquitto.render_acl(config),
    }
    if not force:
        _refuse_changes(texts)
    try:
        for folder in (root, root / mosquitto.DATA, root / accounts.SECRETS):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise WorkError(f"{error.filename}: cannot make the folder: {error.strerror}") from error
    done = [_write(path, text) for path, text in texts.items()]
    if not config.anonymous:
        users = (mosquitto.COORDINATOR, mosquitto.MONITOR, *config.devices)
        fresh = accounts.ensure(root, users, renew=new_passwords)
        done += [
            Written(accounts.secret_file(root, user), "new password" if user in fresh else "kept") for user in users
        ]
    return done


def _refuse_changes(texts: dict[Path, str]) -> None:
    for path, text in texts.items():
        if path.exists() and path.read_text() != text:
            raise ConfigError(f"{path} differs from what would be written; keep it, or replace it with --force")


def _write(path: Path, text: str) -> Written:
    if path.exists() and path.read_text() == text:
        return Written(path, "kept")
    write_atomic(path, text.encode())
    return Written(path, "written")
