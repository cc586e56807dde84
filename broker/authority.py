"""A federation's own certificate authority: what it signs, and what it takes back (X.509, RFC 5280).

Certificates are for ECDSA on P-256, which every TLS library and the smallest Pi handle at once.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.bundle import FACTS
from common.errors import ConfigError

AUTHORITY_DAYS = 3650
BACKDATED = dt.timedelta(days=1)
"""A Pi has no clock of its own and may be late."""
Public = ec.EllipticCurvePublicKey


@dataclass(frozen=True)
class Authority:
    """Its certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        """The certificate, for everybody."""
        return pem_of(self.certificate)

    @property
    def private_pem(self) -> str:
        """The key, for nobody."""
        return private_pem(self.key)


def create(federation: str, now: dt.datetime) -> Authority:
    """Make an authority that signs no other one."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"fedpi {federation}")
    until = now + dt.timedelta(days=AUTHORITY_DAYS)
    builder = _builder(name, key.public_key(), name, (now, until))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(is_authority=True), critical=True)
    return Authority(builder.sign(key, hashes.SHA256()), key)


def read(certificate: bytes, key: bytes) -> Authority:
    """Read an authority from PEM; raises ConfigError."""
    try:
        found = load_pem_private_key(key, None)
        made = x509.load_pem_x509_certificate(certificate)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the authority's key or certificate is damaged: {error}; restore them") from error
    if not isinstance(found, ec.EllipticCurvePrivateKey) or made.public_key() != found.public_key():
        raise ConfigError("the authority's key and certificate do not belong together; restore them")
    return Authority(made, found)


def issue_client(authority: Authority, name: str, public: Public, until: dt.datetime, now: dt.datetime) -> str:
    """Certify that the key `public` is that of `name`, to log in with and for nothing else; returns PEM."""
    return issue_member(authority, name, public, (now, until), b"")


def issue_member(
    authority: Authority, name: str, public: Public, times: tuple[dt.datetime, dt.datetime], known: bytes
) -> str:
    """Do so from and until `times`, and certify what else `name` is told, as `common.bundle.facts` has it."""
    builder = _leaf(authority, name, public, times)
    if known:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(FACTS), known)
        builder = builder.add_extension(extension, critical=False)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    return pem_of(builder.add_extension(usage, critical=False).sign(authority.key, hashes.SHA256()))


def issue_server(
    authority: Authority, names: Sequence[str], public: Public, until: dt.datetime, now: dt.datetime
) -> str:
    """Certify that the key `public` is that of the broker at `names`: host names and addresses; returns PEM."""
    builder = _leaf(authority, "broker", public, (now, until))
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    places = x509.SubjectAlternativeName([_place(name) for name in names])
    builder = builder.add_extension(usage, critical=False).add_extension(places, critical=False)
    return pem_of(builder.sign(authority.key, hashes.SHA256()))


def revocations(authority: Authority, serials: Iterable[int], now: dt.datetime) -> str:
    """Write the list of certificates that are taken back. It never ends before the authority, or TLS would stop."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - BACKDATED)
        .next_update(authority.certificate.not_valid_after_utc)
        .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        .add_extension(_issuer_key(authority.key.public_key()), critical=False)
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - BACKDATED)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a key for TLS."""
    return ec.generate_private_key(ec.SECP256R1())


def new_signing_key() -> tuple[str, bytes]:
    """Make a key for signing messages: the private one in PEM, the 32 bytes of the public one."""
    key = Ed25519PrivateKey.generate()
    return private_pem(key), key.public_key().public_bytes_raw()


def signing_public(pem: bytes) -> bytes:
    """Return the 32 bytes of the public key of a key for signing; raises ValueError or TypeError if it is none."""
    key = load_pem_private_key(pem, None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError("it is no Ed25519 key")
    return key.public_key().public_bytes_raw()


def private_pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> str:
    """Write a private key, in clear."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def pem_of(certificate: x509.Certificate) -> str:
    """Write a certificate."""
    return certificate.public_bytes(Encoding.PEM).decode()


def _leaf(
    authority: Authority, name: str, public: Public, times: tuple[dt.datetime, dt.datetime]
) -> x509.CertificateBuilder:
    now, until = times
    end = min(until, authority.certificate.not_valid_after_utc)
    builder = _builder(_name(name), public, authority.certificate.subject, (now, end))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(is_authority=False), critical=True)
    return builder.add_extension(_issuer_key(authority.key.public_key()), critical=False)


def _builder(
    subject: x509.Name, public: Public, issuer: x509.Name, times: tuple[dt.datetime, dt.datetime]
) -> x509.CertificateBuilder:
    now, until = times
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, until) - BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _place(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _issuer_key(public: Public) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
