"""TLS to the broker: at least 1.2, the host's name checked; and when our own certificate ends."""

import contextlib
import datetime as dt
import logging
import re
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING

from common.config import TlsConfig, locate
from common.errors import ConfigError, LinkError, WorkError
from common.files import DECRYPT, unreadable
from common.journal import tags

if TYPE_CHECKING:
    from cryptography import x509

log = logging.getLogger(__name__)

WARN_S = 30 * 86_400.0
"""How long before a certificate ends people are warned."""


def context(tls: TlsConfig) -> ssl.SSLContext:
    """Return what a connection needs. Raises ConfigError, or WorkError for a failing disk, that names the file."""
    _read("ca", tls.ca)
    try:
        made = ssl.create_default_context(cafile=tls.ca)
    except ssl.SSLError as error:
        raise ConfigError(f"broker.tls: ca: {tls.ca} holds no certificate in PEM; take the broker's ca.crt") from error
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.certificate is not None:
        _load_own(made, tls.certificate, tls.key)
    return made


def requirement() -> ssl.SSLContext:
    """Return what it takes to find out whether a port speaks TLS: nothing is sent over it, nobody is trusted."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def _load_own(made: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """Load our certificate and its key, without a question to whoever sits at the terminal."""
    _load_certificate(certificate)
    found = certificate if key is None else str(locate(key))
    named = f"broker.tls: key: {key or certificate}"
    content = _read("key" if key else "certificate", found)
    if b"ENCRYPTED" in content:
        raise ConfigError(f"{named} is encrypted; {DECRYPT}")
    try:
        made.load_cert_chain(certificate, found, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{named} does not belong to {certificate}; name the two of one identity") from error
        raise ConfigError(f"{named} holds no private key in PEM that can be used; name the right file") from error
    except OSError as error:
        raise unreadable(f"{named}: cannot read", error) from error


def _read(key: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise unreadable(f"broker.tls: {key}: cannot read {path}", error) from error


def _load_certificate(path: str) -> "x509.Certificate":
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(_read("certificate", path))
    except ValueError as error:
        raise ConfigError(f"broker.tls: certificate: {path} is no certificate in PEM; name the right file") from error


class CertificateWatch:
    """Tells, and logs once a day, that our own certificate ends within 30 days."""

    LOOK_S = 3600.0
    LOG_S = 86_400.0

    def __init__(self, tls: TlsConfig | None) -> None:
        self._tls = tls
        self._look_at = self._log_at = float("-inf")
        self._until: float | None = None

    def warning(self) -> str:
        """Return a sentence, or nothing; reads the certificate again now and then. Raises ConfigError."""
        if (now := time.monotonic()) >= self._look_at:
            self._look_at = now + self.LOOK_S
            self._until = certificate_until(self._tls)
        if (text := expiry_warning(self._until)) and now >= self._log_at:
            self._log_at = now + self.LOG_S
            log.warning("%s", text, extra=tags("certificate-ends"))
        return text


def certificate_until(tls: TlsConfig | None) -> float | None:
    """Return when our own certificate ends, in Unix seconds; None without one. Raises ConfigError, WorkError."""
    if tls is None or tls.certificate is None:
        return None
    return _load_certificate(tls.certificate).not_valid_after_utc.timestamp()


def certificate_fault(tls: TlsConfig | None) -> ConfigError | LinkError | None:
    """Return what is wrong with the time of our own certificate; None where it holds, or cannot be read.

    That it has ended is the operator's to mend; that it does not hold yet may pass, when the clock is set.
    """
    if tls is None or tls.certificate is None:
        return None
    with contextlib.suppress(ConfigError, WorkError):
        found, now = _load_certificate(tls.certificate), dt.datetime.now(dt.UTC)
        if now > found.not_valid_after_utc:
            ended = f"{found.not_valid_after_utc:%Y-%m-%d}"
            return ConfigError(
                f"the certificate {tls.certificate} has ended on {ended}: renew it by fedpi-broker renew"
            )
        if now < found.not_valid_before_utc:
            begin = f"{found.not_valid_before_utc:%Y-%m-%d}"
            said = f"holds from {begin} on, and this machine's clock says {now:%Y-%m-%d}: set the clock"
            return LinkError(f"the certificate {tls.certificate} {said}")
    return None


def expiry_warning(until: float | None, now: float | None = None) -> str:
    """Say that a certificate ends within 30 days or has ended, all in Unix seconds; nothing before."""
    if until is None:
        return ""
    left = until - (time.time() if now is None else now)
    if left > WARN_S:
        return ""
    cure = "renew it by fedpi-broker renew."
    if left <= 0:
        return f"The certificate has ended: {cure}"
    return f"The certificate ends in {int(left // 86_400)} days: {cure}"


def days_told(text: str) -> int | None:
    """Return the days that are left by a sentence of `expiry_warning` in a text, 0 at the end; None without one."""
    match = re.search(r"The certificate (?:ends in (\d{1,2}) days|has ended): ", text)
    return None if match is None else int(match[1] or 0)
