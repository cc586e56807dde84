"""Which of two connections with one device's name is told to end: never both. Pure.

A Takeover asks its reader whether it lives: it answers by a Hello, and ends where the same other connection takes over
a second time. Two processes that start at once have several Hellos on their way each, so that both could be told a
second time before either has ended. So whoever is the first to be told twice is out: the other one is told no second
time, and a Hello of the one that is out takes nothing over any more.
"""

from collections import Counter

from common.messages import Takeover

OUT = 2
"""A device ends when it is told so often of the same other connection (`device.voice`)."""
KEPT = 64
"""Pairs of connections of a device that are counted."""


class Twins:
    """Counts, for each device, who was told of whom."""

    def __init__(self) -> None:
        self._told: dict[str, Counter[tuple[str, str]]] = {}

    def is_out(self, device: str, nonce: str, by: str) -> bool:
        """Whether the connection `nonce` was told twice that `by` took over."""
        return self._told.get(device, Counter())[nonce, by] >= OUT

    def tell(self, device: str, nonce: str, by: str) -> Takeover | None:
        """Return what to tell the connection `nonce`; None where it is the other one that is out."""
        if self.is_out(device, by, nonce):
            return None
        told = self._told.setdefault(device, Counter())
        if len(told) >= KEPT and (nonce, by) not in told:
            told.clear()
        told[nonce, by] += 1
        return Takeover(device=device, nonce=nonce, by=by)

    def forget(self, device: str) -> None:
        """Begin anew: its present connection is gone."""
        self._told.pop(device, None)
