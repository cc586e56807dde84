"""How many days each device's certificate has left, which its status tells within the last 30 (`common.tls`)."""

import time
from collections.abc import Mapping

import msgspec

from common.tls import days_told
from coordinator.store import Store

FACT = "certificates"
"""Its name in the journal."""
DAY_S = 86_400.0


class Told(msgspec.Struct, frozen=True):
    """The number that was told, and since when it is, in Unix seconds."""

    days: int
    since: float


class Certificates:
    """What the devices' statuses say of their certificates, kept in the journal when it changes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._told = dict(read(store))
        self._is_stale = False

    def hear(self, device: str, text: str) -> None:
        """Take the text of a device's status: without a word about its certificate, that lasts."""
        days, before = days_told(text), self._told.get(device)
        if days == (None if before is None else before.days):
            return
        self._is_stale = True
        if days is None:
            del self._told[device]
        else:
            self._told[device] = Told(days, time.time())

    def flush(self) -> None:
        """Write down what has changed."""
        if self._is_stale:
            self._store.note_fact(FACT, msgspec.json.encode(self._told).decode())
            self._is_stale = False


def read(store: Store) -> Mapping[str, Told]:
    """Return what was written down last."""
    try:
        return msgspec.json.decode(store.fact(FACT) or "{}", type=dict[str, Told])
    except msgspec.MsgspecError:
        return {}


def days_left(store: Store) -> dict[str, int]:
    """Return the days left by device, for those that told them; 0 for a certificate that has ended."""
    now = time.time()
    return {name: max(told.days - int((now - told.since) // DAY_S), 0) for name, told in read(store).items()}
