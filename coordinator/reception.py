"""What arrives: decoded, checked against its topic, and turned into events. Also who is present."""

import logging
import time
from dataclasses import dataclass

from common.errors import PeerError
from common.messages import (
    Accept,
    Bye,
    CheckIn,
    Chunk,
    Decline,
    DeviceStatus,
    Failed,
    Hello,
    Offer,
    Say,
    Want,
    decode,
    decode_story,
)
from common.topics import Address, Kind
from coordinator import events
from coordinator.store import DeviceRow, Store

log = logging.getLogger(__name__)

LOG_EVERY_S = 1.0


@dataclass(frozen=True)
class Arrival:
    """What a message means to the coordinator; at most one field is set."""

    event: events.Event | None = None
    want: Want | None = None
    chunk: Chunk | None = None


class Reception:
    """Admits the messages of one federation's devices."""

    def __init__(self, federation: str, store: Store) -> None:
        self._federation = federation
        self._store = store
        self._nonces: dict[str, str] = {}
        self._seen: dict[str, DeviceRow] = {}
        self._log_at = 0.0
        self.refused = 0

    @property
    def present(self) -> frozenset[str]:
        """Devices that are connected, as far as anybody knows."""
        return frozenset(self._nonces)

    def admit(self, address: Address, payload: bytes, round_: int) -> Arrival:
        """Read one message; raises PeerError for anything but a device that speaks for itself, of the open round."""
        if address.federation != self._federation:
            raise PeerError(f"federation {address.federation!r} is not ours")
        if address.kind is Kind.DEV_UP:
            return Arrival(chunk=decode(payload, Chunk))
        if address.kind is Kind.DEV_STATUS:
            self._see(decode_story(payload, DeviceStatus), address.device)
            return Arrival()
        if address.kind is not Kind.DEV_SAY:
            raise PeerError(f"nobody speaks to the coordinator on a {address.kind.value} topic")
        return self._hear(decode(payload, Say), address.device, round_)

    def refuse(self, name: str, error: PeerError) -> None:
        """Count a message that was dropped; a flood of them fills no log."""
        self.refused += 1
        now = time.monotonic()
        if now >= self._log_at:
            self._log_at = now + LOG_EVERY_S
            log.warning("refused=%d topic=%s %s", self.refused, name[:200], error)

    def _hear(self, message: Say, device: str, round_: int) -> Arrival:
        if message.device != device:
            raise PeerError(f"{device} speaks as {message.device}")
        match message:
            case Hello(nonce=nonce):
                self._nonces[device] = nonce
                return Arrival()
            case Bye(nonce=nonce):
                if self._nonces.get(device) not in (None, nonce):
                    return Arrival()  # the late goodbye of an old connection
                self._nonces.pop(device, None)
                return Arrival(event=events.Left(device=device))
            case Want():
                return Arrival(want=message)
            case Offer():
                return Arrival(event=events.Offered(offer=message))
        if message.round != round_:
            raise PeerError(f"{device} speaks of round {message.round}; the open one is {round_ or 'none'}")
        return Arrival(event=self._of_round(message))

    @staticmethod
    def _of_round(message: CheckIn | Accept | Decline | Failed) -> events.Event:
        match message:
            case CheckIn():
                return events.CheckedIn(device=message.device)
            case Accept():
                return events.Accepted(device=message.device)
            case Decline():
                return events.Declined(device=message.device, reason=message.reason)
            case Failed():
                return events.Failed(device=message.device, reason=message.reason)

    def _see(self, status: DeviceStatus, device: str) -> None:
        if status.device != device:
            raise PeerError(f"{device} states the status of {status.device}")
        known = self._nonces.get(device)
        if status.state == "offline" and known not in (None, status.nonce):
            return  # the late will of an old connection
        if status.state == "offline":
            self._nonces.pop(device, None)
        else:
            self._nonces[device] = status.nonce
        row = DeviceRow(device=device, state=status.state, doing=status.doing, release=status.release, seen=time.time())
        self._seen[device] = row

    def flush(self) -> None:
        """Write down what the devices said of themselves since the last time."""
        if self._seen:
            self._store.see_devices(list(self._seen.values()))
            self._seen.clear()
