"""Devices that people take out: their retained documents leave the broker, whenever it is there."""

import logging

from coordinator.reception import Reception
from coordinator.store import Store
from coordinator.voice import Voice

log = logging.getLogger(__name__)


class Forgetting:
    """Does what `fedpi-coordinator forget` asks for through the journal, until the broker has acknowledged it."""

    def __init__(self, store: Store, reception: Reception, voice: Voice) -> None:
        self._store = store
        self._reception = reception
        self._voice = voice
        self._said: set[str] = set()

    def begin_anew(self) -> None:
        """Say it again on a new connection, before it subscribes: what was retained would make the device known."""
        self._said.clear()
        self.look()

    def look(self) -> None:
        """Look what is asked for; once all that was said is acknowledged, it is done."""
        if not self._voice.is_connected:
            return
        for device in self._store.to_forget():
            if device not in self._said:
                self._said.add(device)
                self._reception.forget(device)
                self._voice.forget(device)
            elif self._voice.is_acknowledged:
                self._said.discard(device)
                self._store.have_forgotten(device)
                log.info("device=%s is forgotten", device)
