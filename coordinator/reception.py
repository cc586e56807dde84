"""What arrives: decoded, checked against its topic, and turned into events. Also who is present."""

import logging
import time
from dataclasses import dataclass

from common.config import SigningConfig
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
    Result,
    Say,
    Takeover,
    Want,
    decode,
    decode_story,
)
from common.plan import RoundPlan
from common.signing import ReplayedError, Verifier
from common.topics import Address, Kind, topic
from coordinator import events
from coordinator.budgets import OverBudgetError
from coordinator.certificates import Certificates
from coordinator.store import DeviceRow, Store
from coordinator.twins import Twins

log = logging.getLogger(__name__)

LOG_EVERY_S = 1.0
SEEN_EVERY_S = 15.0
"""How old what the journal has of a device may become, though it is heard of more often: a disk wears out."""
REMIND_S = 5.0
"""An earlier connection that is heard of for so long after a Takeover belongs to a process that did not get it."""


@dataclass(frozen=True)
class Arrival:
    """What a message means to the coordinator; at most one field is set."""

    event: events.Event | None = None
    want: Want | None = None
    chunk: Chunk | None = None
    takeover: Takeover | None = None
    """Tell this: the device's name was in use."""
    is_offline: bool = False
    """The device's connection is gone."""
    late: Result | None = None
    """Tell this: it spoke of a round that is over, or of one that this coordinator never had."""


class Reception:
    """Admits the messages of one federation's devices."""

    def __init__(self, federation: str, store: Store, signing: SigningConfig | None = None, epoch: str = "0") -> None:
        """`epoch` is that of the coordinator's present start."""
        self._federation = federation
        self._store = store
        self._verifier = Verifier(signing)
        self._nonces: dict[str, str] = {}
        self._present: frozenset[str] | None = None
        """The devices in `_nonces`, once somebody has asked."""
        self._former: dict[str, str] = {}
        """The connection of a device before its present one."""
        self._told_at: dict[str, float] = {}
        """When that connection was told, in monotonic seconds."""
        self._twins = Twins()
        self._unheard: dict[str, str] = {}
        """The connection of a device that was refused as said before, while nobody had the device's name."""
        self._abilities: dict[str, frozenset[str]] = {}
        self._epoch = epoch
        self._greeted: set[str] = set()
        """Devices whose Hello named this start: what they sign is newer than whatever was said to an earlier one."""
        self._seen: dict[str, DeviceRow] = {}
        self._heard: dict[str, float] = {}
        """When devices were heard of last, in Unix seconds, unless the journal has it."""
        self._written: dict[str, float] = {}
        """What the journal has of that."""
        self._certificates = Certificates(store)
        self._log_at = 0.0
        self.refused = 0

    @property
    def present(self) -> frozenset[str]:
        """Devices that are connected, as far as anybody knows."""
        if self._present is None:
            self._present = frozenset(self._nonces)
        return self._present

    def admit(self, address: Address, payload: bytes, open_: RoundPlan | None) -> Arrival:
        """Read one message; raises PeerError for anything but a device that speaks for itself, of the open round.

        Where devices sign, it is their own signature and no repetition. Chunks are covered by the digest in the offer.
        """
        try:
            return self._admit(address, payload, open_)
        except ReplayedError as error:
            takeover = self._twin(error.message, address)
            if takeover is None:
                raise
            self.refuse(_name(address), error)
            return Arrival(takeover=takeover)

    def _admit(self, address: Address, payload: bytes, open_: RoundPlan | None) -> Arrival:
        if address.federation != self._federation:
            raise PeerError(f"federation {address.federation!r} is not ours")
        if address.kind is Kind.DEV_UP:
            return Arrival(chunk=decode(payload, Chunk))
        if address.kind is Kind.DEV_STATUS:
            if not payload:  # a device that was forgotten: its retained status is gone
                return Arrival()
            document = self._verifier.story(_name(address), payload, address.device)
            return self._see(decode_story(document, DeviceStatus), address.device)
        if address.kind is not Kind.DEV_SAY:
            raise PeerError(f"nobody speaks to the coordinator on a {address.kind.value} topic")
        message = self._verifier.wire(_name(address), payload, address.device)
        return self._hear(decode(message, Say), address.device, open_)

    def refuse(self, name: str, error: PeerError) -> None:
        """Count a message that was dropped; a flood of them, and whoever exceeds a budget, fills no log."""
        self.refused += 1
        now = time.monotonic()
        if now >= self._log_at and not isinstance(error, OverBudgetError):
            self._log_at = now + LOG_EVERY_S
            log.warning("refused=%d topic=%s %s", self.refused, name[:200], error)

    def _hear(self, message: Say, device: str, open_: RoundPlan | None) -> Arrival:
        if message.device != device:
            raise PeerError(f"{device} speaks as {message.device}")
        self.heard(device)
        match message:
            case Hello(nonce=nonce):
                self._abilities[device] = frozenset(message.abilities)
                if message.epoch == self._epoch:
                    self._greeted.add(device)
                return Arrival(takeover=self._welcome(device, nonce))
            case _ if self._verifier.peers is not None and device not in self._greeted:
                raise PeerError(f"{device} has not said Hello to this start of the coordinator: this may be a replay")
            case Bye(nonce=nonce):
                if self._nonces.get(device) not in (None, nonce):
                    return Arrival()  # the late goodbye of an old connection
                self._forget(device)
                return Arrival(event=events.Left(device=device))
            case Want():
                return Arrival(want=message)
        if open_ is not None and (message.round, message.generation) == (open_.round, open_.generation):
            return Arrival(event=self._of_round(message))
        if isinstance(message, CheckIn | Offer):
            return Arrival(late=self._late(message))
        raise PeerError(f"{device} speaks of round {message.round}; the open one is {open_.round if open_ else 'none'}")

    def _late(self, message: CheckIn | Offer) -> Result:
        """Answer who asks for a round that is not open: from the ledger, or that it is not in there.

        The latter is no Refusal: where another coordinator has the round, that would end the device's part in it.
        """
        number, generation = message.round, message.generation
        reason = f"round {number} of generation {generation} is not open and not in the ledger here"
        unknown = Result(device=message.device, round=number, generation=generation, counted=False, reason=reason)
        return self._store.result(number, generation, message.device) or unknown

    def _welcome(self, device: str, nonce: str) -> Takeover | None:
        """Take a connection for the device's present one; who held the name until now is told: it may still live."""
        former = self._nonces.get(device) or self._unheard.pop(device, None)
        if former is not None and self._twins.is_out(device, nonce, former):
            return self._tell(device, nonce, former)  # it is about to end
        self._nonces[device] = nonce
        self._present = None
        if former in {None, nonce}:
            return None
        self._former[device] = former
        return self._tell(device, former, nonce)

    def _twin(self, message: bytes, address: Address) -> Takeover | None:
        """Tell the connection that a replayed message names that the device has another one.

        What signed it may live, with the same keys on another machine and an earlier epoch: nothing that it says is
        heard, so only this ends it. Where it is a replay indeed, nobody has that connection any more.
        """
        is_status = address.kind is Kind.DEV_STATUS
        said: Say | DeviceStatus = decode_story(message, DeviceStatus) if is_status else decode(message, Say)
        if not isinstance(said, Hello | DeviceStatus) or getattr(said, "state", "online") == "offline":
            return None
        known = self._nonces.get(address.device)
        if said.device != address.device or known == said.nonce:
            return None
        if known is None:  # it may have come before the one that is heard
            self._unheard[address.device] = said.nonce
            return None
        return self._tell(address.device, said.nonce, known)

    def _forget(self, device: str) -> None:
        self._nonces.pop(device, None)
        self._twins.forget(device)
        self._present = None

    def _tell(self, device: str, former: str, by: str) -> Takeover | None:
        self._told_at[device] = time.monotonic()
        return self._twins.tell(device, former, by)

    def _of_round(self, message: CheckIn | Accept | Decline | Failed | Offer) -> events.Event | None:
        match message:
            case CheckIn():
                abilities = self._abilities.get(message.device)
                if abilities is None:  # its Hello is lost, or under way: it checks in again
                    return None
                return events.CheckedIn(device=message.device, abilities=abilities)
            case Offer():
                return events.Offered(offer=message)
            case Accept():
                return events.Accepted(device=message.device)
            case Decline():
                return events.Declined(device=message.device, reason=message.reason)
            case Failed():
                return events.Failed(device=message.device, reason=message.reason)

    def _see(self, status: DeviceStatus, device: str) -> Arrival:
        """Take note of what a device says of itself; a connection that is new by it counts as one that said Hello."""
        if status.device != device:
            raise PeerError(f"{device} states the status of {status.device}")
        known = self._nonces.get(device)
        is_offline = status.state == "offline"
        if is_offline and known not in (None, status.nonce):
            return Arrival()  # the late will of an old connection
        if status.nonce == self._former.get(device) != known:  # another process, or the last word of an old connection
            if known is None or is_offline or time.monotonic() < self._told_at[device] + REMIND_S:
                return Arrival()
            return Arrival(takeover=self._tell(device, status.nonce, known))
        if status.state == "online":
            self._certificates.hear(device, status.text)
        self._seen[device] = DeviceRow(
            device=device,
            state=status.state,
            doing=status.doing,
            release=status.release,
            seen=time.time(),
            refused=status.refused,
            health=status.health,
        )
        if is_offline:
            self._forget(device)
            return Arrival(is_offline=True)
        return Arrival(takeover=self._welcome(device, status.nonce))

    def revoked(self) -> list[events.Event]:
        """Forget who is trusted no more since the last time; returns what that means to the open round."""
        peers, gone = self._verifier.peers, list[events.Event]()
        for device in sorted(peers.take_dropped()) if peers else ():
            log.warning("device=%s is revoked", device)
            self._forget(device)
            self._seen[device] = DeviceRow(
                device=device, state="offline", doing="revoked", release="", seen=time.time()
            )
            gone += [events.Left(device=device), events.Failed(device=device, reason="its keys were revoked")]
        return gone

    def forget(self, device: str) -> None:
        """Write down nothing that the device said before."""
        self._seen.pop(device, None)
        self._heard.pop(device, None)

    def heard(self, device: str) -> None:
        """Take note that something came from a device."""
        self._heard[device] = time.time()

    def flush(self) -> None:
        """Write down what the devices said of themselves since the last time."""
        self._certificates.flush()
        now = time.time()
        old = {name for name in self._heard if abs(now - self._written.get(name, 0.0)) >= SEEN_EVERY_S}
        if self._seen or old:
            for name in self._seen:
                self._heard.pop(name, None)
            due = {name: self._heard.pop(name) for name in old - self._seen.keys()}
            self._store.see_devices(list(self._seen.values()), due)
            self._written |= due | {name: row.seen for name, row in self._seen.items()}
            self._seen.clear()


def _name(address: Address) -> str:
    return topic(address.kind, address.federation, device=address.device)
