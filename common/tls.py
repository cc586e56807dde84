"""TLS to the broker: at least 1.2, the host's name checked; and when our own certificate ends."""

import logging
import ssl
import time
from pathlib import Path

from common.config import TlsConfig, locate
from common.errors import ConfigError
from common.journal import tags

log = logging.getLogger(__name__)

WARN_S = 30 * 86_400.0
"""How long before a certificate ends people are warned."""


def context(tls: TlsConfig) -> ssl.SSLContext:
    """Return what a connection needs; raises ConfigError where a file cannot be used."""
    try:
        made = ssl.create_default_context(cafile=tls.ca)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if tls.certificate is not None:
            made.load_cert_chain(tls.certificate, None if tls.key is None else str(locate(tls.key)))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        said = getattr(error, "strerror", None) or error
        named = ", ".join(filter(None, (tls.ca, tls.certificate, tls.key)))
        raise ConfigError(f"broker.tls: cannot use {named}: {said}") from error
    return made


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
    """Return when our own certificate ends, in Unix seconds; None without one. Raises ConfigError."""
    if tls is None or tls.certificate is None:
        return None
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(Path(tls.certificate).read_bytes())
    except OSError as error:
        raise ConfigError(f"broker.tls.certificate: cannot read {tls.certificate}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"broker.tls.certificate: {tls.certificate} is no certificate in PEM") from error
    return certificate.not_valid_after_utc.timestamp()


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
