"""What a process tells systemd: that it is ready, what it does, that its loop still turns.

The protocol is that of sd_notify(3): datagrams of `NAME=value` lines to the socket that NOTIFY_SOCKET names.
Written here because it is smaller than any package that speaks it.
"""

import contextlib
import faulthandler
import os
import socket
from collections.abc import MutableMapping

BEATS = 4
"""Pings in one interval of the watchdog, so that a slow turn of the loop is no alarm."""


class Pulse:
    """The line to systemd; silent where the process is no unit of Type=notify.

    Takes its variables out of `environment`: a child that inherited them would speak in this process's name.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        interval_us = environment.pop("WATCHDOG_USEC", "")
        is_ours = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every_s = int(interval_us) / 1e6 / BEATS if interval_us.isdigit() and is_ours else None
        self._due_at = 0.0
        self._status: str | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) if self._address else None
        if self._socket is not None and self._every_s is not None:
            faulthandler.enable()  # the watchdog ends a loop that hangs by SIGABRT: the log then says where it hung

    def beat(self, now: float, status: str) -> None:
        """Tell that the loop has turned once more, at `now` in monotonic seconds. Call it from the loop, nowhere else.

        The first call makes the unit ready. `status` is what `systemctl status` shows.
        """
        if self._socket is None:
            return
        lines = []
        if self._status is None:
            lines.append("READY=1")
        if status != self._status:
            self._status = status
            lines.append(f"STATUS={' '.join(status.split())}")
        if self._every_s is not None and now >= self._due_at:
            self._due_at = now + self._every_s
            lines.append("WATCHDOG=1")
        if lines:
            self._send(lines)

    def stopping(self) -> None:
        """Tell that the end has begun."""
        self._send(["STOPPING=1"])

    def _send(self, lines: list[str]) -> None:
        if self._socket is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError):  # systemd starts itself anew: the next beat reaches it
            self._socket.sendto("\n".join(lines).encode(), address)
