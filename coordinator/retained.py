"""What the broker is to keep for whoever comes later: one document a topic, published when it changes."""

import logging
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)

HEADER_BYTES = 16
"""Of a PUBLISH beside topic and payload, at most: its length, a message id, an empty list of properties."""


class Publish(Protocol):
    """Publishes a payload; returns whether the connection has it."""

    def __call__(self, name: str, payload: bytes, *, retain: bool) -> bool: ...


class Retained:
    """The documents by topic. A signature is no change: a document that says the same is not published again."""

    def __init__(self, publish: Publish, sign: Callable[[str, bytes], bytes]) -> None:
        self._publish = publish
        self._sign = sign
        self._held: dict[str, bytes] = {}
        """What the broker has, or cannot take, as far as anybody knows."""
        self._too_large: set[str] = set()

    def put(self, name: str, document: bytes, packet_bytes: int | None, *, is_signed: bool = True) -> None:
        """Publish a document unless the broker has it; one too large for a packet is named in the log and left out."""
        if self._held.get(name) == document:
            return
        payload = self._sign(name, document) if is_signed else document
        size = len(name) + len(payload) + HEADER_BYTES
        if packet_bytes is not None and size > packet_bytes:
            self._leave_out(name, size, packet_bytes)
            self._held[name] = document
            return
        self._too_large.discard(name)
        if self._publish(name, payload, retain=True):
            self._held[name] = document

    def remove(self, name: str) -> None:
        """Take a document out of the broker: an empty one takes its place."""
        self._held.pop(name, None)
        self._publish(name, b"", retain=True)

    def expire(self) -> None:
        """Take nothing for known to the broker: it may have come back empty."""
        self._held.clear()

    def _leave_out(self, name: str, size: int, packet_bytes: int) -> None:
        if name not in self._too_large:
            self._too_large.add(name)
            log.error(
                "topic=%s not published: it needs a packet of %d bytes, the limit is %d",
                name,
                size,
                packet_bytes,
            )
