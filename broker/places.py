"""Under which names and addresses other machines reach this one."""

import ipaddress
import socket
from collections.abc import Sequence

from broker.settings import LOOPBACK, is_loopback

_SOMEWHERE = "192.0.2.1"
"""An address for documentation (RFC 5737): nothing is sent there, the kernel only says which way it would go."""


def reachable_names(host: str, given: Sequence[str]) -> tuple[str, ...]:
    """Return what a certificate of the broker on `host` must name; the first is what devices dial.

    `given` comes first; then the address to listen on, or that of this machine where it listens on all.
    """
    own = [host] if not is_any(host) else [*_addresses(), socket.gethostname()]
    names = [*given, *own, "localhost", LOOPBACK]
    return tuple(dict.fromkeys(name for name in names if _is_usable(name)))


def dial_here(host: str) -> str:
    """Where a process on the broker's own machine dials."""
    return LOOPBACK if is_any(host) or is_loopback(host) else host


def is_any(host: str) -> bool:
    """Whether `host` means every address of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _addresses() -> list[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_SOMEWHERE, 9))
        except OSError:  # no network, or none with a way out
            return []
        return [str(probe.getsockname()[0])]


def _is_usable(name: str) -> bool:
    try:
        name.encode("ascii")
    except UnicodeEncodeError:
        return False
    return bool(name)
