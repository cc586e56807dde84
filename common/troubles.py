"""Why a broker cannot be reached, or refuses us: one sentence that says what to do about it."""

import re
import socket
import ssl
from dataclasses import dataclass

from common.config import BrokerConfig
from common.errors import ConfigError
from common.limits import PACKET_LEAST
from common.tls import certificate_fault, requirement

PROBE_S = 2.0
"""How long a port has to show what it speaks."""
_CONNECT = bytes.fromhex("100f 0004 4d515454 04 02 0005 0003 612d62")
"""CONNECT of MQTT 3.1.1 with the client id "a-b", nothing else (section 3.1 there)."""
_CLOCK = "or this machine's clock is wrong"
_NOT_YET = 9
_VERIFY = {
    **dict.fromkeys(
        (2, 18, 19, 20, 21),
        "the broker's certificate is not of the authority in broker.tls.ca, {ca}: take the one of this federation's "
        "broker",
    ),
    _NOT_YET: f"the broker's certificate does not hold yet, {_CLOCK}: set the clock",
    10: f"the broker's certificate has ended, {_CLOCK}: renew it there by fedpi-broker renew",
    **dict.fromkeys(
        (62, 64),
        "the broker's certificate is for another name than {host}: set broker.host to one that it is for, or add "
        "this one there by fedpi-broker init --name",
    ),
}
"""By the number of OpenSSL's error (X509_V_ERR_*)."""
_ASKS = "the broker asks for a certificate: name broker.tls.certificate and broker.tls.key, or join again"
_STRANGE = "the broker does not accept {certificate}: it is of another authority, revoked or damaged; join again"
_NO_TLS = "the port speaks no TLS: set broker.port to the one that does, or leave broker.tls out"
_ONLY_TLS = "the port speaks TLS: name the broker's authority at broker.tls.ca, or set broker.port to one without"
_OLD = "the broker and this machine have no version of TLS in common: 1.2 or later is needed"
_TLS = (
    (r"ALERT_CERTIFICATE_REQUIRED", _ASKS),
    (r"ALERT_CERTIFICATE_EXPIRED", "the broker says that {certificate} has ended: renew it by fedpi-broker renew"),
    (r"ALERT_CERTIFICATE_REVOKED", "{certificate} is revoked: enrol this device again, by fedpi-broker enroll"),
    (r"ALERT_UNKNOWN_CA|_CERTIFICATE$|CERTIFICATE_UNKNOWN|ALERT_ACCESS_DENIED|ALERT_DECRYPT", _STRANGE),
    (r"PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS|CIPHER|INSUFFICIENT_SECURITY", _OLD),
    (r"WRONG_VERSION_NUMBER|HTTP_REQUEST|RECORD_LAYER|PACKET_LENGTH|UNEXPECTED_MESSAGE|UNKNOWN_PROTOCOL", _NO_TLS),
)
"""By the name that OpenSSL gives its reason."""
_NO_CONNECTION: dict[type[Exception], str] = {
    ConnectionRefusedError: "nothing listens there: start the broker, or correct broker.port",
    socket.gaierror: "nobody knows the name {host}: correct broker.host, or this machine's DNS",
    TimeoutError: "{host} does not answer: look whether it is on, and for a firewall between",
}
_LOGIN = ("Not authorized", "Bad user name or password", "Bad authentication method")
_VERSION = "Unsupported protocol version"
_CODES = {
    "Banned": "the broker has banned this client: have that lifted there",
    "Client identifier not valid": "the broker refuses the client id: let it take those that begin with fedpi-",
    _VERSION: "the broker does not speak this version of MQTT: set broker.protocol to auto",
    "Use another server": "the broker is another one now: set broker.host",
    "Server moved": "the broker is another one now: set broker.host",
}
"""By the words of a CONNACK's or DISCONNECT's reason code that do not pass by themselves."""


@dataclass(frozen=True)
class Trouble:
    """A sentence; `is_lasting`: somebody has to mend it, waiting does not."""

    text: str
    is_lasting: bool = False


def of_error(error: Exception, broker: BrokerConfig) -> Trouble:
    """Explain why no connection came about."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_verification(error, broker)
    if isinstance(error, ssl.SSLError) or (broker.tls is not None and _is_closed(error)):
        return of_closing(str(error), broker, was_connected=False)
    for kind, text in _NO_CONNECTION.items():
        if isinstance(error, kind):
            return Trouble(f"{text.format(host=broker.host)} ({error})")
    return Trouble(str(error))


def of_code(code: str, broker: BrokerConfig) -> Trouble:
    """Explain the reason code with which a broker refused or ended a connection."""
    if code in _LOGIN:
        return Trouble(f"{_login(broker)} ({code})", is_lasting=True)
    if code in _CODES:
        return Trouble(f"{_CODES[code]} ({code})", is_lasting=code != _VERSION or broker.protocol != "auto")
    return Trouble(code)


def of_limit(packet_bytes: int) -> Trouble:
    """Explain why a broker is left that announces packets of no more than `packet_bytes`."""
    text = f"the broker takes packets of {packet_bytes} bytes at most, and fedpi needs {PACKET_LEAST}: raise that there"
    return Trouble(text, is_lasting=True)


def of_closing(said: str, broker: BrokerConfig, *, was_connected: bool = True) -> Trouble:
    """Explain a connection that ended before the broker answered; `said` is what the socket or OpenSSL said of it."""
    reason = match[1] if (match := re.search(r"\[SSL: (\w+)\]", said)) else ""
    if (own := certificate_fault(broker.tls)) is not None:
        return Trouble(f"{own} ({said})", is_lasting=isinstance(own, ConfigError))
    certificate = broker.tls.certificate if broker.tls and broker.tls.certificate else "no certificate"
    for pattern, text in _TLS:
        if reason and re.search(pattern, reason):
            told = text.format(certificate=certificate)
            return Trouble(f"{told} ({said})", is_lasting=True)
    if broker.tls is None:
        perhaps = _ONLY_TLS
    elif not was_connected:
        perhaps = _NO_TLS
    else:
        perhaps = _ASKS if broker.tls.certificate is None else _STRANGE.format(certificate=certificate)
    return Trouble(f"the broker closed the connection before it answered; perhaps {perhaps} ({said})")


def of_port(broker: BrokerConfig) -> Trouble | None:
    """Try whether the port speaks TLS where none is configured, or MQTT without it where it is."""
    if broker.tls is None and _speaks_tls(broker):
        return Trouble(_ONLY_TLS, is_lasting=True)
    if broker.tls is not None and _speaks_mqtt(broker):
        return Trouble(_NO_TLS, is_lasting=True)
    return None


def _of_verification(error: ssl.SSLCertVerificationError, broker: BrokerConfig) -> Trouble:
    ca = broker.tls.ca if broker.tls else ""
    text = _VERIFY.get(error.verify_code, f"the broker's certificate cannot be trusted: {error.verify_message}")
    told = f"{text.format(ca=ca, host=broker.host)} ({error})"
    return Trouble(told, is_lasting=error.verify_code != _NOT_YET)


def _login(broker: BrokerConfig) -> str:
    if broker.username is not None:
        return f"the broker refuses the login of {broker.username!r}: correct broker.username and broker.password_file"
    if broker.tls is not None and broker.tls.certificate is not None:
        return f"the broker refuses the login by {broker.tls.certificate}: look there with fedpi-broker enrolled"
    return "the broker refuses the login without a name: give broker.username and broker.password_file, or join"


def _speaks_tls(broker: BrokerConfig) -> bool:
    try:
        with socket.create_connection((broker.host, broker.port), PROBE_S) as line, requirement().wrap_socket(line):
            return True
    except ssl.SSLError as error:  # an alert is an answer, too
        return "ALERT" in (error.reason or "")
    except (OSError, ValueError):
        return False


def _speaks_mqtt(broker: BrokerConfig) -> bool:
    try:
        with socket.create_connection((broker.host, broker.port), PROBE_S) as line:
            line.sendall(_CONNECT)
            return line.recv(1) == b"\x20"  # CONNACK, whatever it says
    except (OSError, ValueError):
        return False


def _is_closed(error: Exception) -> bool:
    return isinstance(error, ConnectionResetError | BrokenPipeError | ConnectionAbortedError)
