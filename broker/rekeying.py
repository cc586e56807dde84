"""Replacing the coordinator's own keys: its signing key in step with the devices, or all of them at once after a theft.

In step: `prepare` makes a key and the devices' files, which trust the one in use and the new one; `switch` lets the
coordinator take it. Between the two every device joins its file, and the federation runs on.
"""

import base64
from dataclasses import replace
from pathlib import Path

import msgspec

from broker import authority as authorities
from broker import register
from broker.enrolment import deliver, reload
from broker.office import Office, open_office
from broker.settings import ServeConfig
from common.bundle import COORDINATOR
from common.errors import ConfigError, WorkError
from common.files import publish, write_private


def prepare(config: ServeConfig, to: Path) -> list[tuple[str, Path]]:
    """Make the next signing key unless there is one, and write every device's file into `to`; returns those.

    Raises ConfigError, WorkError.
    """
    with register.alone(config.authority_root):
        office = open_office(config)
        path = office.coordinator.next_signing_key
        if not (office.register.next_signing and path.exists()):
            private, public = authorities.new_signing_key()
            write_private(path, private.encode())  # first: what devices are told to trust must be there
            known = msgspec.structs.replace(office.register, next_signing=base64.b64encode(public).decode())
            office = replace(office, register=known)
        office = _vouched(office)
        office.record()
        return _files(office, to)


def switch(config: ServeConfig) -> None:
    """Put the next signing key in the place of the one in use, which is gone then. Raises ConfigError, WorkError."""
    with register.alone(config.authority_root):
        office = open_office(config)
        identity, coming = office.coordinator, office.register.next_signing
        if not coming:
            raise ConfigError("no other signing key is prepared; make one with: fedpi-broker rekey")
        is_pending = identity.next_signing_key.exists()
        if _public(identity.next_signing_key if is_pending else identity.signing_key) != coming:
            raise ConfigError(f"{identity.next_signing_key} is not the key that was prepared; bring that one back")
        if is_pending:
            try:
                publish(identity.next_signing_key, identity.signing_key)
            except OSError as error:
                raise WorkError(f"{identity.signing_key}: cannot replace: {error.strerror}") from error
        members = office.register.members
        mine = msgspec.structs.replace(members[COORDINATOR], signing=coming)
        known = msgspec.structs.replace(office.register, members={**members, COORDINATOR: mine}, next_signing="")
        replace(office, register=known).record()


def replace_stolen(config: ServeConfig, to: Path) -> list[tuple[str, Path]]:
    """Give the coordinator new keys of both kinds at once, revoke its certificates, write every device's file.

    Until a device has joined its file it trusts the stolen key and refuses the new one. Raises ConfigError, WorkError.
    """
    with register.alone(config.authority_root):
        office = open_office(config).revoke(COORDINATOR)
        office, bundle = replace(office, register=msgspec.structs.replace(office.register, next_signing="")).admit(
            COORDINATOR
        )
        office = _vouched(office)
        office.record()
        office.coordinator.install(bundle)
        office.coordinator.next_signing_key.unlink(missing_ok=True)
        written = _files(office, to)
    reload(config)
    return written


def _vouched(office: Office) -> Office:
    """Certify for every device what it is told from now on."""
    for name in _devices(office):
        office = office.vouch(name)
    return office


def _files(office: Office, to: Path) -> list[tuple[str, Path]]:
    return [(name, deliver(office, name, to)) for name in _devices(office)]


def _devices(office: Office) -> list[str]:
    return sorted(name for name, member in office.register.members.items() if member.role == "device")


def _public(path: Path) -> str:
    """Return the public key of a signing key's file, in base64; raises ConfigError."""
    try:
        return base64.b64encode(authorities.signing_public(path.read_bytes())).decode()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the key: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is damaged; bring it back: {error}") from error
