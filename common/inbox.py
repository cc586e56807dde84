"""What a process's loop waits for: the sockets of its links, and events from its other threads.

One thread reads, decides and writes, so a message costs no change of threads, which is half of what
it would cost otherwise. What is not read yet waits in the kernel's buffers, and so slows its sender.
"""

import os
import select
import threading
import time
import weakref
from collections import deque
from typing import Any, Protocol

from common.config import TransferConfig

LIMIT_BYTES = TransferConfig().inbox_bytes
OVERHEAD_BYTES = 500
"""What a queued message costs beside its payload, roughly, so that a flood of empty messages is bounded too."""
TEND_EVERY_S = 1.0
PAUSE_S = 1.0
"""Longer than any loop waits for an event, and short beside the silences that are acted on."""


class Source(Protocol):
    """A connection that the loop reads and writes."""

    def descriptor(self) -> int | None:
        """Return the descriptor to wait for, None while there is no connection."""

    def has_pending(self) -> bool:
        """Whether there is something to read that no descriptor tells of."""

    def wants_write(self) -> bool:
        """Whether something waits to be written."""

    def read(self) -> None:
        """Read what is there and put its events into the inbox."""

    def write(self) -> None:
        """Write what fits."""

    def tend(self) -> None:
        """Do what time demands, such as keepalives; called about once a second."""


class Inbox:
    """Events in order of arrival. A message that would pass the bound is dropped: the ends say it again."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.dropped = 0
        self._limit_bytes = limit_bytes
        self._events: deque[tuple[Any, int]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()
        self._sources: list[Source] = []
        self._next_tend = 0.0
        self._listened_at = time.monotonic()
        self._is_waiting = False
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._alarm)

    def attach(self, source: Source) -> None:
        """Read and write `source` from now on, in the thread that calls `get`."""
        self._sources.append(source)

    def put(self, event: object, message_bytes: int | None = None) -> None:
        """Queue `event`; safe from any thread. `message_bytes`: size of a message, which is the only event to drop."""
        size = 0 if message_bytes is None else OVERHEAD_BYTES + message_bytes
        with self._lock:
            if size and self._bytes + size > self._limit_bytes:
                self.dropped += 1
                return
            self._bytes += size
        self._events.append((event, size))
        self.wake()

    def wake(self) -> None:
        """Make `get` look at its sources again; safe from any thread."""
        if self._is_waiting:
            os.eventfd_write(self._alarm, 1)

    def get(self, timeout_s: float) -> Any | None:
        """Return the next event, or None when none came within `timeout_s`."""
        if not self._events:
            self._wait(max(timeout_s, 0.0))
        if not self._events:
            return None
        event, size = self._events.popleft()
        if size:
            with self._lock:
                self._bytes -= size
        return event

    def missed_s(self, now: float) -> float:
        """Return for how long nobody listened, if that was longer than usual: the process was stopped, or busy.

        Call it after every `get`. What came meanwhile is waiting: whoever sent it was not silent.
        """
        since, self._listened_at = now - self._listened_at, now
        return since if since > PAUSE_S else 0.0

    def serve(self, timeout_s: float) -> None:
        """Read and write the sources for at most `timeout_s`, or until something happened; events stay queued."""
        self._is_waiting = True
        try:
            ready = self._poll(0.0 if self._events else timeout_s)
        finally:
            self._is_waiting = False
        for source, can_read, can_write in ready:
            if can_write:
                source.write()
            if can_read:
                source.read()
        if (now := time.monotonic()) >= self._next_tend:
            self._next_tend = now + TEND_EVERY_S
            for source in self._sources:
                source.tend()

    def _wait(self, timeout_s: float) -> None:
        end = time.monotonic() + timeout_s
        left = timeout_s
        while True:
            self.serve(left)
            left = end - time.monotonic()
            if self._events or left <= 0:
                return

    def _poll(self, timeout_s: float) -> list[tuple[Source, bool, bool]]:
        poll = select.poll()
        poll.register(self._alarm, select.POLLIN)
        found: dict[int, Source] = {}
        for source in self._sources:
            descriptor = source.descriptor()
            if descriptor is None:
                continue
            found[descriptor] = source
            poll.register(descriptor, select.POLLIN | (select.POLLOUT if source.wants_write() else 0))
            if source.has_pending():
                timeout_s = 0.0
        until = min(timeout_s, TEND_EVERY_S)
        ready: list[tuple[Source, bool, bool]] = []
        for descriptor, happened in poll.poll(until * 1000):
            if descriptor == self._alarm:
                os.eventfd_read(self._alarm)
                continue
            ready.append((found[descriptor], bool(happened & ~select.POLLOUT), bool(happened & select.POLLOUT)))
        ready += [(source, True, False) for source in found.values() if source.has_pending()]
        return ready
