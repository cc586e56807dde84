"""What a party needs to join a federation, in one file: made by `fedpi-broker enroll`, read by `join`."""

from pathlib import Path
from typing import Literal

import msgspec

from common.config import Config, DeviceId, Port
from common.errors import ConfigError
from common.files import make_folder, write_private

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
        """Raise ConfigError unless certificate, authority and key belong together; `source` names the bundle."""
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        if bundle.key is None and not self.key.exists():
            raise ConfigError(f"{source} renews an identity that is not installed in {self.folder}; join there first")
        try:
            key = load_pem_private_key(self.key.read_bytes() if bundle.key is None else bundle.key.encode(), None)
            certificate = x509.load_pem_x509_certificate(bundle.certificate.encode())
            certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(bundle.ca.encode()))
        except OSError as error:
            raise ConfigError(f"{self.key}: cannot read the key: {error.strerror}") from error
        except (ValueError, TypeError, InvalidSignature) as error:
            raise ConfigError(f"{source} is damaged; enrol {bundle.name} again: {error}") from error
        if certificate.public_key() != key.public_key():
            raise ConfigError(f"{source} is for another key than the one in {self.folder}; enrol {bundle.name} again")

    def install(self, bundle: Bundle) -> None:
        """Write the files of `bundle`: private keys for their owner only. Raises WorkError."""
        make_folder(self.folder, mode=0o755)
        if bundle.key is not None and bundle.signing_key is not None:
            write_private(self.key, bundle.key.encode())
            write_private(self.signing_key, bundle.signing_key.encode())
        # The certificate last: whoever sees a new one finds all that goes with it.
        for path, text in ((self.ca, bundle.ca), (self.peers, bundle.peers), (self.certificate, bundle.certificate)):
            write_private(path, text.encode(), mode=0o644)

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
        return msgspec.json.decode(path.read_bytes(), type=Bundle)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no file of `fedpi-broker enroll`: {error}") from error
