"""The authority at work on one broker's folder: its record, what it certifies, and what others read of it."""

import base64
import datetime as dt
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from cryptography import x509

from broker import authority as authorities
from broker import mosquitto, register
from broker.authority import Authority
from broker.places import reachable_names
from broker.register import Member, Register, Revoked
from broker.settings import ServeConfig
from common.bundle import COORDINATOR, MONITOR, Bundle, Identity, certified_facts, facts
from common.errors import ConfigError
from common.files import write_private
from common.tls import WARN_S

CA_KEY = "ca.key"


@dataclass(frozen=True)
class Office:
    """An authority, its record and the time."""

    config: ServeConfig
    authority: Authority
    register: Register
    now: dt.datetime

    @property
    def until(self) -> dt.datetime:
        """When a certificate that is issued now ends."""
        return self.now + dt.timedelta(days=self.register.days)

    @property
    def coordinator(self) -> Identity:
        """Where the coordinator's identity lies."""
        return Identity(Path(self.register.coordinator), COORDINATOR)

    @property
    def server_until(self) -> int:
        """When the broker's certificate ends, in Unix seconds; 0 where there is none."""
        found = self._server()
        return 0 if found is None else int(found.not_valid_after_utc.timestamp())

    def ends_soon(self, until: int) -> bool:
        """Whether less than 30 days are left until a time in Unix seconds."""
        return until - self.now.timestamp() <= WARN_S

    def admit(self, name: str) -> tuple["Office", Bundle]:
        """Make keys for `name` and certify them; only the bundle holds the private ones."""
        key = authorities.new_key()
        signing, public = authorities.new_signing_key()
        member = Member(
            role="coordinator" if name == COORDINATOR else "monitor" if name == MONITOR else "device",
            certificate=self._issue(name, key.public_key()),
            until=int(self.until.timestamp()),
            signing=base64.b64encode(public).decode(),
        )
        after = self._with(name, member)
        keys = {"key": authorities.private_pem(key), "signing_key": signing}
        return after, msgspec.structs.replace(after.bundle(name), **keys)

    def renew(self, name: str) -> "Office":
        """Certify the key of `name` anew. Raises ConfigError."""
        if (member := self.register.members.get(name)) is None:
            raise ConfigError(f"{name} is not enrolled")
        public = x509.load_pem_x509_certificate(member.certificate.encode()).public_key()
        assert isinstance(public, authorities.Public)  # noqa: S101 - we issue no others
        fresh = msgspec.structs.replace(
            member,
            certificate=self._issue(name, public),
            until=int(self.until.timestamp()),
            earlier=(*member.earlier, member.serial),
        )
        return self._with(name, fresh)

    def vouch(self, name: str) -> "Office":
        """Certify the key of `name` anew if its certificate does not vouch for what its bundle says now."""
        issued = x509.load_pem_x509_certificate(self.register.members[name].certificate.encode())
        return self if certified_facts(issued) == self._facts(name) else self.renew(name)

    def revoke(self, name: str) -> "Office":
        """Strike `name`, which is enrolled, and take back all its certificates."""
        at, member = int(self.now.timestamp()), self.register.members[name]
        entries = [Revoked(name=name, serial=serial, at=at) for serial in (*member.earlier, member.serial)]
        left = {key: value for key, value in self.register.members.items() if key != name}
        known = msgspec.structs.replace(self.register, members=left, revoked=(*self.register.revoked, *entries))
        return replace(self, register=known)

    def bundle(self, name: str) -> Bundle:
        """Return what `name` needs, without private keys."""
        return self._bundle(name, self.register.members[name].certificate)

    def _bundle(self, name: str, certificate: str) -> Bundle:
        known = self.register
        return Bundle(
            format=1,
            federation=known.federation,
            name=name,
            host=known.host,
            port=known.port,
            ca=self.authority.pem,
            certificate=certificate,
            peers=known.peers("device" if name == COORDINATOR else "coordinator"),
        )

    def record(self) -> None:
        """Write the record, and what Mosquitto and the coordinator read of it. Raises WorkError."""
        register.save(self.config.authority_root, self.register)
        serials = [int(entry.serial, 16) for entry in self.register.revoked]
        root = self.config.root
        for path, text in (
            (root / mosquitto.REVOKED, authorities.revocations(self.authority, serials, self.now)),
            (root / mosquitto.CA, self.authority.pem),
            (root / mosquitto.ACL, mosquitto.with_denials(_read(root / mosquitto.ACL), self.register.shut_out)),
        ):
            write_private(path, text.encode(), mode=0o644)
        if self.coordinator.folder.exists():
            write_private(self.coordinator.peers, self.register.peers("device").encode(), mode=0o644)

    def has_server(self) -> bool:
        """Whether the broker's certificate is there, names what it must, and lasts."""
        found = self._server()
        if found is None or not (self.config.root / mosquitto.KEY).exists():
            return False
        places = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return {str(place.value) for place in places} == set(self.register.server_names) and not self.ends_soon(
            self.server_until
        )

    def serve(self) -> None:
        """Write a new key, for the broker's account only, and certificate of the broker. Raises WorkError."""
        key, root = authorities.new_key(), self.config.root
        issued = authorities.issue_server(
            self.authority, self.register.server_names, key.public_key(), self.until, self.now
        )
        write_private(root / mosquitto.KEY, authorities.private_pem(key).encode(), like=root / mosquitto.DATA)
        write_private(root / mosquitto.CERTIFICATE, issued.encode(), mode=0o644)

    def _issue(self, name: str, public: authorities.Public) -> str:
        return authorities.issue_member(self.authority, name, public, (self.now, self.until), self._facts(name))

    def _facts(self, name: str) -> bytes:
        """Return what a certificate vouches for; the coordinator, who joins no file, is told of each device."""
        return b"" if name == COORDINATOR else facts(self._bundle(name, ""))

    def _server(self) -> x509.Certificate | None:
        path = self.config.root / mosquitto.CERTIFICATE
        return x509.load_pem_x509_certificate(path.read_bytes()) if path.exists() else None

    def _with(self, name: str, member: Member) -> "Office":
        members = {**self.register.members, name: member}
        return replace(self, register=msgspec.structs.replace(self.register, members=members))


def found_office(config: ServeConfig) -> Office:
    """Make a new authority. Raises WorkError."""
    assert config.federation is not None  # noqa: S101 - `init` has looked
    now, root = dt.datetime.now(dt.UTC), config.authority_root
    made = authorities.create(config.federation, now)
    write_private(root / mosquitto.CA, made.pem.encode())
    known = _settled(
        config,
        Register(federation=config.federation, host="", port=config.port, days=1, server_names=(), coordinator=""),
    )
    register.save(root, known)
    write_private(root / CA_KEY, made.private_pem.encode())
    return Office(config, made, known, now)


def open_office(config: ServeConfig) -> Office:
    """Open the authority that is there. Raises ConfigError."""
    root = config.authority_root
    known = register.load(root)
    try:
        made = authorities.read((root / mosquitto.CA).read_bytes(), (root / CA_KEY).read_bytes())
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot read the authority: {error.strerror}") from error
    return Office(config, made, known, dt.datetime.now(dt.UTC))


def settle(office: Office) -> Office:
    """Take over what the configuration says of the broker; a federation keeps its name. Raises ConfigError."""
    return replace(office, register=_settled(office.config, office.register))


def coordinator_folder(config: ServeConfig) -> Path:
    """Where the coordinator's identity lies: beside its configuration, or in the broker's folder."""
    parent = config.root if config.coordinator is None else Path(config.coordinator).absolute().parent
    return parent / COORDINATOR


def _settled(config: ServeConfig, known: Register) -> Register:
    if config.federation != known.federation:
        raise ConfigError(
            f"federation: this authority is that of {known.federation!r}, not {config.federation!r}; name another"
        )
    names = reachable_names(config.host, config.names)
    return msgspec.structs.replace(
        known,
        host=names[0],
        port=config.port,
        days=config.days,
        server_names=tuple(sorted(names)),
        coordinator=str(coordinator_folder(config)),
    )


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
