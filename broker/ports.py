"""Asking the kernel for what a broker needs, before it asks in its own words: a free port, room for connections."""

import errno
import resource
import socket

from common.errors import ConfigError


def require_free(host: str, port: int) -> None:
    """Raise ConfigError with a sentence unless a broker could listen on `host` and `port` now."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = "the port is in use" if error.errno == errno.EADDRINUSE else str(error.strerror)
        raise ConfigError(
            f"cannot listen on {host} port {port}: {reason}; stop what runs there or choose another port"
        ) from error


def raise_file_limit() -> None:
    """Allow as many connections as may be allowed: the customary 1,024 are fewer than a burst can open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
