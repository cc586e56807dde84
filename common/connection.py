"""One connection of a link, from CONNECT to its end."""

import threading
from dataclasses import dataclass, field
from typing import Any

from common.troubles import Trouble


@dataclass
class Connection:
    """One paho client from CONNECT to its end, and what is unacknowledged on it."""

    client: Any
    ended: threading.Event = field(default_factory=threading.Event)
    reason: str = "the connection closed"
    is_lasting: bool = False
    trouble: str = ""
    """What paho logged of the socket: it gives no reason of its own for a TLS alert."""
    line: Any = None
    """The open socket."""
    has_failed: bool = False
    is_up: bool = False
    was_reached: bool = False
    was_refused: bool = False
    was_answered: bool = False
    was_up: bool = False
    unacknowledged: int = 0
    topics: dict[int, str] = field(default_factory=dict)

    def explain(self, trouble: Trouble) -> None:
        """Take note of why it ends."""
        self.reason, self.is_lasting = trouble.text, trouble.is_lasting

    def end(self) -> None:
        """Close it, in order where that is still possible; the link's thread makes the next one."""
        line, self.is_up, self.line = self.line, False, None
        self.client.disconnect()
        if line is not None:
            line.close()
        self.ended.set()
