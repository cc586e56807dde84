"""How often this process has waited for its disk: whatever syncs a file or a folder says so here. Any thread may."""

import threading
from typing import NamedTuple


class Syncs(NamedTuple):
    """Syncs so far, and how often one had to end before the next began: those that begin together are one wait."""

    calls: int
    waits: int


class Tally:
    """Adds them up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made = Syncs(0, 0)

    def add(self, calls: int, waits: int) -> None:
        """Note syncs that are made."""
        with self._lock:
            self._made = Syncs(self._made.calls + calls, self._made.waits + waits)

    @property
    def made(self) -> Syncs:
        """Those since the process began."""
        return self._made


TALLY = Tally()
"""Of this process."""
