"""Mosquitto's users: a random password each, hashed for the broker, in clear in a file of its own for its owner."""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from broker.mosquitto import DATA, PASSWORDS
from common import files
from common.config import read_text
from common.errors import ConfigError, WorkError

SECRETS = "secrets"


def find_program(name: str) -> str:
    """Find a program of Mosquitto's, also where only root's PATH leads; raises ConfigError."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise ConfigError(f"{name} is not installed; install Mosquitto (Debian: apt install mosquitto)")
    return found


def secret_file(root: Path, user: str) -> Path:
    """Name the file that holds the password of `user`, for `broker.password_file` of its owner."""
    return root / SECRETS / f"{user}.password"


def ensure(root: Path, users: Iterable[str], *, renew: bool) -> list[str]:
    """Give each of `users` a password who has none yet, or all of them if `renew`; returns those who got one.

    A user who is in the password file keeps the password, wherever the clear copy has gone meanwhile. Made by root, the
    password file belongs to the owner of the broker's state.
    Raises ConfigError without mosquitto_passwd, WorkError where a file cannot be written.
    """
    path = root / PASSWORDS
    lines = _read(path)
    fresh = [user for user in dict.fromkeys(users) if renew or user not in lines]
    if fresh:
        lines |= _hash({user: _password(root, user, renew=renew) for user in fresh})
        text = "".join(f"{user}:{digest}\n" for user, digest in lines.items())
        files.write_private(path, text.encode(), like=root / DATA)
    return fresh


def _read(path: Path) -> dict[str, str]:
    """Read the hashed password of each user in Mosquitto's file."""
    rows = read_text(path, "the hashed passwords").splitlines() if path.exists() else []
    return {user: digest for user, _, digest in (row.partition(":") for row in rows) if digest}


def _password(root: Path, user: str, *, renew: bool) -> str:
    """Return the user's password: the one in its file, so that an interrupted `init` goes on, or a new one."""
    path = secret_file(root, user)
    if path.exists() and not renew:
        return read_text(path, "the password").strip()
    password = secrets.token_urlsafe(24)
    files.write_private(path, f"{password}\n".encode())
    return password


def _hash(passwords: dict[str, str]) -> dict[str, str]:
    """Hash with Mosquitto's own tool, through a private file: an argument would show in the list of processes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PASSWORDS
        files.write_private(path, "".join(f"{user}:{password}\n" for user, password in passwords.items()).encode())
        done = subprocess.run(
            [find_program("mosquitto_passwd"), "-U", path], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise WorkError(f"mosquitto_passwd failed: {done.stderr.strip() or done.stdout.strip()}")
        return _read(path)
