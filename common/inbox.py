"""The one queue between paho's threads and a process's loop, with a bound on the bytes that wait in it."""

import queue
import threading
from dataclasses import dataclass
from typing import Any

from common.link import Received

LIMIT_BYTES = 128 * 2**20
OVERHEAD_BYTES = 500
"""What a queued event costs beside its payload, roughly, so that a flood of empty messages is bounded too."""


@dataclass
class Inbox:
    """Events in order of arrival. A message that would pass the bound is dropped: the ends say it again."""

    limit_bytes: int = LIMIT_BYTES
    dropped: int = 0

    def __post_init__(self) -> None:
        self._events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, event: object) -> None:
        """Queue `event`; safe from any thread."""
        size = OVERHEAD_BYTES + len(event.payload) if isinstance(event, Received) else 0
        with self._lock:
            if size and self._bytes + size > self.limit_bytes:
                self.dropped += 1
                return
            self._bytes += size
        self._events.put(event)

    def get(self, timeout_s: float) -> Any | None:
        """Return the next event, or None when none came within `timeout_s`."""
        try:
            event = self._events.get(timeout=max(timeout_s, 0.0)) if timeout_s > 0 else self._events.get_nowait()
        except queue.Empty:
            return None
        if isinstance(event, Received):
            with self._lock:
                self._bytes -= OVERHEAD_BYTES + len(event.payload)
        return event
