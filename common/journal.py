"""Logs as entries of systemd's journal, with fields to search by: ROUND, DEVICE, MESSAGE_ID and others.

Speaks the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): its Python binding has no wheels, and what
is needed of it is one datagram an entry.
"""

import logging
import os
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SOCKET = "/run/systemd/journal/socket"
LIMIT = 48 * 1024
"""Characters of a message: a datagram that is larger than the socket's buffer would be refused."""

ALERTS = {
    "round-void": "28d4f406660743dd87384bc5480f7682",
    "training-failed": "f0d0fa16ca09483ca3af36a24dfd98b6",
    "update-refused": "8b6be9a583104065a38f74e103ab18d0",
    "release-refused": "2cd471ee4e71487a9a33b3b76e8181ff",
    "serving-ended": "2bf95e270e6c4d46963655d4a32f03fd",
    "certificate-ends": "573b9ecb135e47548833655a9b7900b6",
}
"""Events that somebody should look at, each with its MESSAGE_ID; systemd/fedpi.catalog explains them."""

_PLACE = re.compile(r"(?:\b([a-z][a-z_]*)=)?%(?:%|[-+ #0]*\d*(?:\.\d+)?[a-zA-Z])")
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_OURS = {"MESSAGE", "MESSAGE_ID", "PRIORITY", "LOGGER", "SYSLOG_IDENTIFIER", "CODE_FILE", "CODE_LINE", "CODE_FUNC"}


def tags(event: str, **fields: object) -> dict[str, Any]:
    """Return the `extra` of a log call about `event`; fields that are empty are left out."""
    alert = {"MESSAGE_ID": ALERTS[event]} if event in ALERTS else {}
    given = {name.upper(): str(value) for name, value in fields.items() if value}
    return {"journal": {"EVENT": event, **given, **alert}}


def is_journal(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether stderr leads into the journal: only then would entries beside it be seen where it is seen."""
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}" and Path(SOCKET).exists()


class JournalHandler(logging.Handler):
    """Sends each record as an entry to the journal's socket."""

    def __init__(self, path: str = SOCKET) -> None:
        super().__init__()
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        """Send it; what the journal does not take goes to stderr."""
        try:
            self._socket.sendto(entry(fields_of(record, self.format(record))), self._path)
        except OSError:  # the journal starts anew; its streams outlive that
            sys.stderr.write(self.format(record) + "\n")

    def close(self) -> None:
        """Let the socket go."""
        self._socket.close()
        super().close()


def fields_of(record: logging.LogRecord, text: str) -> dict[str, str]:
    """Return the entry of `record`, whose message is `text`.

    `key=%s` in the format of the log call becomes the field KEY. The format is ours; what peers wrote is in its
    arguments, so nobody can forge a field.
    """
    return {
        **{name: value for name, value in _arguments(record).items() if name not in _OURS},
        **getattr(record, "journal", {}),
        "MESSAGE": text[:LIMIT],
        "PRIORITY": str(next((priority for level, priority in _PRIORITIES if record.levelno >= level), 7)),
        "LOGGER": record.name,
        "SYSLOG_IDENTIFIER": Path(sys.argv[0]).name or "fedpi",
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
    }


def entry(fields: Mapping[str, str]) -> bytes:
    """Encode fields; a value of several lines is preceded by its length (little-endian, 64 bits)."""
    done = bytearray()
    for name, value in fields.items():
        content = value.encode(errors="replace")
        if b"\n" in content:
            done += name.encode() + b"\n" + len(content).to_bytes(8, "little") + content + b"\n"
        else:
            done += name.encode() + b"=" + content + b"\n"
    return bytes(done)


def _arguments(record: logging.LogRecord) -> dict[str, str]:
    arguments = iter(record.args) if isinstance(record.args, tuple) else iter(())
    found = {}
    for place in _PLACE.finditer(str(record.msg)):
        if place[0].endswith("%%"):
            continue
        argument = next(arguments, None)
        if place[1] and argument is not None:
            found[place[1].upper()] = str(argument)[:LIMIT]
    return found
