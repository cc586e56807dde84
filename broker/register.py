"""The authority's record of whom it enrolled: one file beside its key, written before anybody is told."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from common.bundle import COORDINATOR
from common.config import Config, DeviceId, Port
from common.errors import ConfigError
from common.files import write_private
from common.names import name_fault

FILE, LOCK = "register.json", "lock"


class Member(Config, frozen=True):
    """One identity: its certificate in PEM and when that ends (Unix seconds), its public signing key in base64."""

    role: Literal["device", "coordinator", "monitor"]
    certificate: str
    until: int
    signing: str
    earlier: tuple[str, ...] = ()
    """Numbers of the certificates before it, in hexadecimal: they hold until they end."""

    @property
    def serial(self) -> str:
        """The certificate's number in hexadecimal."""
        from cryptography import x509

        return f"{x509.load_pem_x509_certificate(self.certificate.encode()).serial_number:x}"


class Revoked(Config, frozen=True):
    """A certificate that was taken back, `at` Unix seconds."""

    name: str
    serial: str
    at: int


class Register(Config, frozen=True, omit_defaults=True):
    """What the authority knows. Devices find the broker at `host` and `port`; `server_names` are all its names."""

    federation: DeviceId
    host: str
    port: Port
    days: int
    server_names: tuple[str, ...]
    coordinator: str
    """Folder of the coordinator's identity on this machine."""
    members: dict[str, Member] = {}  # noqa: RUF012 - msgspec copies defaults
    revoked: tuple[Revoked, ...] = ()
    next_signing: str = ""
    """The public key with which the coordinator will sign next, in base64; empty unless it is being replaced."""

    @property
    def shut_out(self) -> tuple[str, ...]:
        """Names that were revoked and not enrolled again, sorted."""
        return tuple(sorted({entry.name for entry in self.revoked} - set(self.members)))

    def peers(self, *roles: str) -> str:
        """Write whose signatures count, as `common.signing` reads it; never blank, as a file that got lost is."""
        members = [(name, member) for name, member in sorted(self.members.items()) if not name_fault(name)]
        rows = [f"{name} {member.signing}" for name, member in members if member.role in roles]
        if self.next_signing and COORDINATOR in roles:
            rows.append(f"{COORDINATOR} {self.next_signing}")
        return "".join(f"{row}\n" for row in rows or ["# nobody"])


def load(folder: Path) -> Register:
    """Read the record of the authority in `folder`; raises ConfigError."""
    path = folder / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Register)
    except FileNotFoundError as error:
        raise ConfigError(f"{folder} holds no authority; make one with: fedpi-broker init") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is damaged: {error}; restore it") from error


def save(folder: Path, register: Register) -> None:
    """Write the record; raises WorkError."""
    write_private(folder / FILE, msgspec.json.format(msgspec.json.encode(register)))


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until nobody else changes the record, and keep others out."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError as error:
        raise ConfigError(f"{folder} holds no authority; make one with: fedpi-broker init") from error
    except OSError as error:
        raise ConfigError(f"{folder}: cannot use the authority: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
