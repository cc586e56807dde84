"""Names and addresses that people write: what is wrong with one, in words."""

import ipaddress
import re

from common.topics import NAME_PATTERN

MAX_NAME = 32
MAX_HOST = 253
_NAME_RULE = "1 to 32 of a-z, 0-9 and -, with no - at either end"


def name_fault(name: str) -> str:
    """Say why `name` can be neither a federation's nor a device's, and one that could be; nothing where it can."""
    if len(name) <= MAX_NAME and re.match(NAME_PATTERN, name):
        return ""
    near = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_NAME].strip("-")
    return f"{name[:80]!r} is not a valid name; use {_NAME_RULE}, such as {near or 'rpi1'!r}"


def host_fault(host: str) -> str:
    """Say why `host` is neither a host's name nor an IP address, and what to write; nothing where it is one."""
    alone, port = _parts(host)
    shown = repr(re.sub(r"[^/@]*@", "", host)[:80])  # without a password
    if port is not None or "/" in host or "@" in host:
        where = f"the port {port}" if port else "the port"
        return f"{shown} is not a name or address alone; write {alone or 'that'} here, and {where} at 'port'"
    if not _can_be_asked(alone):
        return f"{shown} is not a host's name or address; write one such as broker.lan or 192.168.1.10"
    return ""


def bare_host(host: str) -> str:
    """Return `host` without the square brackets that an IPv6 address has before a port."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def address(host: str, port: int) -> str:
    """Return how host and port are written together: an IPv6 address stands in square brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parts(host: str) -> tuple[str, str | None]:
    """Take a URL apart into the host alone, and the port where one is named."""
    rest = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*://", "", host)
    rest = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if match := re.fullmatch(r"(\[[^\]]*\]|[^:]*):([0-9]*)", rest):
        return bare_host(match[1]), match[2]
    return bare_host(rest), None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _can_be_asked(host: str) -> bool:
    """Whether a resolver takes it: letters, digits, `-` and `_`, in parts of 1 to 63, and 253 in all."""
    if _is_address(host):
        return True
    try:
        parts = host.removesuffix(".").encode("idna").decode("ascii").split(".")
    except UnicodeError:
        return False
    return len(host) <= MAX_HOST and all(re.fullmatch(r"[0-9A-Za-z_-]{1,63}", part) for part in parts)
