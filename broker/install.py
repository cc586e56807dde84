"""`fedpi-broker init`: writes Mosquitto's files into one folder, and never over what an operator changed."""

import getpass
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from broker import accounts, enrolment, mosquitto
from broker.places import dial_here
from broker.settings import ServeConfig
from common.bundle import COORDINATOR, MONITOR
from common.errors import ConfigError
from common.files import make_folder, write_private
from common.sections import update


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
    _check(config)
    make_folder(root.parent, mode=0o755)
    texts = {
        root / mosquitto.CONF: mosquitto.render_conf(config, _account(root)),
        root / mosquitto.ACL: mosquitto.render_acl(config, enrolment.shut_out(config)),
    }
    if not force:
        _refuse_changes(texts)
    for folder in (root, root / mosquitto.DATA):
        make_folder(folder, mode=0o700)
    done = [_write(path, text) for path, text in texts.items()]
    if config.has_tls:
        done += [Written(path, state) for path, state in enrolment.prepare(config)]
    elif not config.anonymous:
        make_folder(root / accounts.SECRETS, mode=0o700)
        users = (COORDINATOR, MONITOR, *config.devices)
        fresh = accounts.ensure(root, users, renew=new_passwords)
        done += [
            Written(accounts.secret_file(root, user), "new password" if user in fresh else "kept") for user in users
        ]
    if is_coordinator_here(config):
        update(Path(config.coordinator or ""), coordinator_sections(config))
    return done


def is_coordinator_here(config: ServeConfig) -> bool:
    """Whether the configuration of the coordinator on this machine is named and there."""
    return config.coordinator is not None and Path(config.coordinator).exists()


def coordinator_sections(config: ServeConfig) -> dict[str, object]:
    """Return what the coordinator's configuration says of this broker, and of its signatures where it has any."""
    if config.has_tls:
        return enrolment.coordinator_sections(config)
    broker: dict[str, object] = {"host": dial_here(config.host), "port": config.port}
    if not config.anonymous:
        broker |= {"username": COORDINATOR, "password_file": str(accounts.secret_file(config.root, COORDINATOR))}
    return {"broker": broker}


def _check(config: ServeConfig) -> None:
    for name in (COORDINATOR, MONITOR):
        if name in config.devices:
            raise ConfigError(f"devices: {name!r} is the user of another role; name the device otherwise")
    if config.anonymous and config.tls:
        raise ConfigError("anonymous and tls: a broker has certificates or lets everybody in; drop one of them")
    if config.has_tls and config.devices:
        raise ConfigError("devices: with TLS there are no passwords; enrol each with: fedpi-broker enroll NAME")
    if config.has_tls and config.federation is None:
        raise ConfigError("federation: TLS needs its name, for the certificates; add it")


def _account(root: Path) -> str:
    """Who runs the broker if root starts it: who runs `init`, or for root who owns the broker's state."""
    if os.geteuid() != 0:
        return getpass.getuser()
    state = next(folder for folder in (root / mosquitto.DATA, root, root.parent) if folder.exists())
    return pwd.getpwuid(state.stat().st_uid).pw_name


def _refuse_changes(texts: dict[Path, str]) -> None:
    for path, text in texts.items():
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            raise ConfigError(f"{path} differs from what would be written; keep it, or replace it with --force")


def _write(path: Path, text: str) -> Written:
    if path.exists() and path.read_text(encoding="utf-8", errors="replace") == text:
        return Written(path, "kept")
    write_private(path, text.encode(), mode=0o644)
    return Written(path, "written")
