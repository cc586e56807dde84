"""What a party needs to join a federation, in one file: made by `fedpi-broker enroll`, read by `join`."""

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from common.config import Config, DeviceId, Port, convert
from common.errors import ConfigError
from common.files import PrivateFile, make_folder, unreadable, write_together
from common.signing import parse_peers

if TYPE_CHECKING:
    from cryptography import x509

SUFFIX = ".fedpi"
COORDINATOR, MONITOR = "coordinator", "monitor"
"""Names that are no device's: they are the users of these roles."""


class Bundle(Config, frozen=True):
    """An identity: keys and certificates as PEM. A renewal has no keys: those that are installed stay."""

    format: Literal[1]
    federation: DeviceId
    name: DeviceId
    host: str
    port: Port
    ca: str
    certificate: str
    key: str | None = None
    signing_key: str | None = None
    peers: str = ""
    """Whose signatures count: lines of a name and a key, as `common.signing` reads them."""


MAX_BYTES = 2**20
"""Of a file: a real one has less than 10 kB."""
FACTS = "2.25.308889374242541997231775158567769985595"
"""The extension of a certificate that holds a digest of what else is in its bundle: so the authority vouches for it.

The number is a UUID's, which nobody has to hand out (ITU-T X.667).
"""
_OCTETS = b"\x04\x20"
"""What stands before 32 bytes in an extension (DER)."""


def facts(bundle: Bundle) -> bytes:
    """Return the value of that extension: over all of the bundle that is neither a key nor certified already."""
    said = (bundle.federation, bundle.name, bundle.host, bundle.port, bundle.peers)
    return _OCTETS + hashlib.sha256(msgspec.json.encode(said)).digest()


def certified_facts(certificate: "x509.Certificate") -> bytes:
    """Return that value as a certificate holds it; nothing where it holds none, as of fedpi 0.1."""
    from cryptography import x509

    with contextlib.suppress(x509.ExtensionNotFound):
        found = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(FACTS)).value
        return found.value if isinstance(found, x509.UnrecognizedExtension) else b""
    return b""


def is_vouched_for(bundle: Bundle) -> bool:
    """Whether a checked bundle may say where the broker is: it brings its keys, or the authority certified it whole."""
    return bundle.key is not None or bool(certified_facts(_certificate(bundle.certificate.encode())))


class Identity:
    """Where an identity lies: a folder named after its role."""

    def __init__(self, folder: Path, role: str) -> None:
        self.folder = folder
        self.ca = folder / "ca.crt"
        self.certificate = folder / f"{role}.crt"
        self.key = folder / f"{role}.key"
        self.signing_key = folder / f"{role}.signing"
        self.next_signing_key = folder / f"{role}.signing-next"
        self.peers = folder / "peers"

    def check(self, bundle: Bundle, source: str) -> None:
        """Raise ConfigError unless all of the bundle, which `source` names, belongs together and may be installed.

        What renews comes from the authority that is installed, is for the key that is, is no older than the
        certificate that is, and says whose signatures count as the authority does.
        """
        from cryptography.exceptions import InvalidSignature

        is_renewal = bundle.key is None
        if is_renewal and not self.key.exists():
            raise ConfigError(f"{source} renews an identity that is not installed in {self.folder}; join there first")
        key = self._installed(self.key) if bundle.key is None else bundle.key.encode()
        try:
            certificate, authority = _certificate(bundle.certificate.encode()), _certificate(bundle.ca.encode())
            certificate.verify_directly_issued_by(authority)
            is_ours = certificate.public_key() == _private(key).public_key()
            _require_whole(bundle, certificate)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise ConfigError(f"{source} is damaged; enrol {bundle.name} again: {error}") from error
        if not is_ours:
            raise ConfigError(f"{source} is for another key than the one in {self.folder}; enrol {bundle.name} again")
        if is_renewal:
            self._check_renewal(bundle, certificate, authority, source)

    def _check_renewal(
        self, bundle: Bundle, certificate: "x509.Certificate", authority: "x509.Certificate", source: str
    ) -> None:
        try:
            ours, before = _certificate(self._installed(self.ca)), _certificate(self._installed(self.certificate))
        except ValueError as error:
            raise ConfigError(f"{self.folder} is damaged; enrol {bundle.name} again: {error}") from error
        if authority != ours:
            raise ConfigError(f"{source} is of another authority than {self.ca}; take one of this federation's")
        if certificate.not_valid_before_utc < before.not_valid_before_utc:
            raise ConfigError(f"{source} is older than {self.certificate}; take the last one that was written")
        is_same = bundle.peers.encode() == self._installed(self.peers)
        if not certified_facts(certificate) and not is_same:
            raise ConfigError(
                f"{source} changes whose signatures count, and the authority does not say so; where fedpi-broker is of "
                "an earlier version, upgrade it and write the file again"
            )

    def _installed(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise unreadable(f"{path}: cannot read what is installed", error) from error

    def install(self, bundle: Bundle) -> None:
        """Write the files of `bundle`: private keys for their owner only. Raises WorkError."""
        make_folder(self.folder, mode=0o755)
        secret = [(self.key, bundle.key), (self.signing_key, bundle.signing_key)]
        # The certificate last: whoever sees a new one finds all that goes with it.
        public = [(self.ca, bundle.ca), (self.peers, bundle.peers), (self.certificate, bundle.certificate)]
        files = [PrivateFile(path, text.encode()) for path, text in secret if text is not None]
        write_together([*files, *(PrivateFile(path, text.encode(), 0o644) for path, text in public)])

    def sections(self, bundle: Bundle) -> dict[str, object]:
        """Return the sections of a configuration file that make use of this identity."""
        tls = {"ca": str(self.ca), "certificate": str(self.certificate), "key": str(self.key)}
        return {
            "federation": bundle.federation,
            "broker": {"host": bundle.host, "port": bundle.port, "tls": tls},
            "signing": {"key": str(self.signing_key), "peers": str(self.peers)},
        }


def encode_bundle(bundle: Bundle) -> bytes:
    """Write a bundle as JSON."""
    return msgspec.json.format(msgspec.json.encode(bundle)) + b"\n"


def read_bundle(path: Path) -> Bundle:
    """Read a bundle; raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise unreadable(f"{path}: cannot read", error) from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} is no file of `fedpi-broker enroll`: it has more than {MAX_BYTES} bytes")
    try:
        return convert(msgspec.json.decode(content), Bundle, "it")
    except (ConfigError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no file of `fedpi-broker enroll`: {error}") from error


def _require_whole(bundle: Bundle, certificate: "x509.Certificate") -> None:
    """Raise ValueError where a part of the bundle is missing, or is not that of its name."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.x509.oid import NameOID

    if [name.value for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] != [bundle.name]:
        raise ValueError("its certificate is of another name")
    if (bundle.key is None) != (bundle.signing_key is None):
        raise ValueError("one of its keys is missing")
    if bundle.signing_key and not isinstance(_private(bundle.signing_key.encode()), Ed25519PrivateKey):
        raise ValueError("its key for signing is none")
    if COORDINATOR not in parse_peers(bundle.peers):
        raise ValueError("the coordinator's key is missing")
    if certified_facts(certificate) not in {b"", facts(bundle)}:
        raise ValueError("what it says is not what the authority certified")


def _certificate(pem: bytes) -> "x509.Certificate":
    from cryptography import x509

    return x509.load_pem_x509_certificate(pem)


def _private(pem: bytes) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key(pem, None)
