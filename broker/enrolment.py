"""Who may take part: enrolling, renewing and revoking identities. Records first, then writes what others read."""

import datetime as dt
import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from broker import mosquitto, register
from broker.office import CA_KEY, Office, found_office, open_office, settle
from broker.places import dial_here
from broker.settings import ServeConfig
from common.bundle import COORDINATOR, SUFFIX, encode_bundle
from common.errors import ConfigError, WorkError
from common.files import make_folder, write_private
from common.names import name_fault


def prepare(config: ServeConfig) -> list[tuple[Path, str]]:
    """Make the authority, the broker's certificate and the coordinator's identity, unless they are there.

    Returns files and what became of them. Raises ConfigError, WorkError.
    """
    root = config.authority_root
    make_folder(root, mode=0o700)
    with register.alone(root):
        is_new = not (root / CA_KEY).exists()
        office = found_office(config) if is_new else settle(open_office(config))
        is_served = office.has_server()
        if not is_served:
            office.serve()
        identity, is_missing = office.coordinator, COORDINATOR not in office.register.members
        if is_missing:
            office, bundle = office.admit(COORDINATOR)
            identity.install(bundle)
        elif not identity.key.exists():
            raise ConfigError(
                f"{identity.key} is missing, and devices trust no other coordinator; bring {identity.folder} back, or "
                "make a new authority in another folder and join every device again"
            )
        office.record()
    if not is_served:
        reload(config)
    done = [
        (root / CA_KEY, is_new),
        (config.root / mosquitto.CERTIFICATE, not is_served),
        (identity.certificate, is_missing),
    ]
    return [(path, "written" if is_written else "kept") for path, is_written in done]


def enroll(config: ServeConfig, name: str, to: Path, *, again: bool = False) -> Path:
    """Give `name` an identity, and write it as one file into the folder `to`; returns that file.

    `again` lets a revoked name return. Raises ConfigError, WorkError.
    """
    if fault := name_fault(name):
        raise ConfigError(fault)
    path = to / f"{name}{SUFFIX}"
    if path.exists():
        raise ConfigError(f"{path} is there already; move it away, or name another folder with --to")
    with register.alone(config.authority_root):
        office = open_office(config)
        if name in office.register.members:
            raise ConfigError(f"{name} is enrolled already; renew or revoke it, or enrol another name")
        if name in office.register.shut_out and not again:
            raise ConfigError(
                f"{name} was revoked; use another name, or restart the broker, so that no old connection of it is "
                "left, and enrol it with --again"
            )
        office, bundle = office.admit(name)
        office.record()  # first, so that there is no certificate that nobody could revoke
        write_private(path, encode_bundle(bundle))
    if again:
        reload(config)
    return path


def revoke(config: ServeConfig, name: str) -> int | None:
    """Shut `name` out, now and for good; returns the process id of the Mosquitto that was told, if one runs.

    Raises ConfigError, WorkError.
    """
    if name == COORDINATOR:
        raise ConfigError(
            f"{name} cannot be revoked: without it there is no federation; "
            "where its keys were stolen, replace them with: fedpi-broker rekey --stolen"
        )
    with register.alone(config.authority_root):
        office = open_office(config)
        if name not in office.register.members:
            known = ", ".join(sorted(set(office.register.members) - {COORDINATOR})) or "nobody"
            raise ConfigError(f"{name} is not enrolled; enrolled are: {known}")
        office.revoke(name).record()
    return reload(config)


def renew(config: ServeConfig, names: Iterable[str], to: Path, *, every: bool = False) -> list[tuple[str, Path | None]]:
    """Certify anew the keys of `names`, or of all who end within 30 days, or of `every` one; the broker's, too.

    Returns names and the file to join with: none for the broker and the coordinator, who have theirs at once.
    Earlier certificates hold until they end. Raises ConfigError, WorkError.
    """
    with register.alone(config.authority_root):
        office = open_office(config)
        is_served = every or (not names and office.ends_soon(office.server_until))
        members = office.register.members.items()
        chosen = list(names) or [name for name, member in members if every or office.ends_soon(member.until)]
        for name in chosen:
            office = office.renew(name)
        office.record()
        if is_served:
            office.serve()
        renewed: list[tuple[str, Path | None]] = [(name, _hand_over(office, name, to)) for name in chosen]
    if is_served or renewed:
        reload(config)
    return [("broker", None)] * is_served + renewed


def _hand_over(office: Office, name: str, to: Path) -> Path | None:
    if name != COORDINATOR:
        return deliver(office, name, to)
    office.coordinator.install(office.bundle(name))
    return None


def deliver(office: Office, name: str, to: Path) -> Path:
    """Write what `name` joins with, without its keys, into the folder `to`; returns the file. Raises WorkError."""
    path = to / f"{name}{SUFFIX}"
    write_private(path, encode_bundle(office.bundle(name)))
    return path


def shut_out(config: ServeConfig) -> tuple[str, ...]:
    """Return who was revoked, if there is an authority."""
    if not config.has_tls or not (config.authority_root / register.FILE).exists():
        return ()
    return register.load(config.authority_root).shut_out


def reload(config: ServeConfig) -> int | None:
    """Let Mosquitto read its files again; returns its process id, or None where it does not run. Raises WorkError."""
    try:
        pid = int((config.root / mosquitto.DATA / mosquitto.PID).read_text())
        if Path(f"/proc/{pid}/comm").read_text().strip() != "mosquitto":
            return None
        os.kill(pid, signal.SIGHUP)
    except PermissionError as error:
        raise WorkError("Mosquitto runs as another user; send it SIGHUP, so that this takes effect") from error
    except (OSError, ValueError):
        return None
    return pid


def coordinator_sections(config: ServeConfig) -> dict[str, object]:
    """Return what the configuration of the coordinator on this machine says of broker and signatures."""
    office = open_office(config)
    return office.coordinator.sections(msgspec.structs.replace(office.bundle(COORDINATOR), host=dial_here(config.host)))


@dataclass(frozen=True)
class Row:
    """One identity for people: `until` in UTC (ISO 8601), `note` says that it ends soon or was revoked."""

    name: str
    role: str
    until: str
    note: str = ""


def listed(config: ServeConfig) -> list[Row]:
    """Return who is enrolled, then who was revoked. Raises ConfigError."""
    office = open_office(config)
    members = {"broker": ("broker", office.server_until)}
    members |= {name: (member.role, member.until) for name, member in office.register.members.items()}
    rows = [
        Row(name, role, _iso(until), "ends soon" * office.ends_soon(until)) for name, (role, until) in members.items()
    ]
    if office.register.next_signing:
        rows.append(Row(COORDINATOR, "next signing key", "", "prepared"))
    gone = {entry.name: entry.at for entry in office.register.revoked}
    return rows + [Row(name, "-", "", f"revoked {_iso(at)}") for name, at in gone.items()]


def _iso(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat()
