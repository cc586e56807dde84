"""Everything that the coordinator says: its two connections, its topics, its count of published bytes."""

import contextlib
import secrets
from typing import Literal

from common.chronicle import PastRounds, RoundMembers
from common.coordinators import Alive, Probe
from common.epochs import next_epoch, raise_epoch
from common.errors import WorkError
from common.inbox import Inbox
from common.limits import PACKET_MOST, PACKET_OVERHEAD
from common.link import Link, Will
from common.messages import (
    CoordinatorStatus,
    Invite,
    Receipt,
    Ref,
    Refusal,
    ReleaseStatus,
    Result,
    Story,
    StoryEvent,
    Takeover,
    Want,
    clip,
    encode,
    encode_story,
)
from common.packing import pack
from common.signing import Signer
from common.tls import CertificateWatch
from common.topics import Kind, topic
from coordinator.chronicler import fitting
from coordinator.config import CoordinatorConfig
from coordinator.distributor import Distributor
from coordinator.home_assistant import discovery_topic
from coordinator.retained import Retained
from coordinator.round_state import Round
from coordinator.store import Release
from coordinator.story import idle_status, mean_metrics, round_status

OTHERS = "Another coordinator serves this federation as well: no round is opened until one of the two is stopped."


class Voice:
    """The coordinator's side of the wire. Two connections, so that bulk cannot delay commands or the will."""

    def __init__(self, config: CoordinatorConfig, inbox: Inbox) -> None:
        self.published_bytes = 0
        self.refused = 0
        self.is_silent = True
        """Nothing is said but to other coordinators: one of them may serve this federation."""
        self.others = 0
        """How many other coordinators run as well."""
        self.trouble = ""
        """What is wrong here that the coordinator's status is to tell."""
        self._federation = config.federation
        self.epoch = secrets.token_hex(8)
        """Drawn at each start; rounds that this start opens have it as their generation."""
        self._epoch_file = config.folder / "epoch"
        self._signer = Signer(config.signing, next_epoch(self._epoch_file) if config.signing else 0)
        self._last_round: Round | None = None
        self._certificate = CertificateWatch(config.broker.tls)
        name, own = f"fedpi-{config.federation}-coord", secrets.token_hex(4)  # nobody can take over what nobody knows
        self._control = Link("control", f"{name}-control-{own}", config.broker, inbox, will=self._new_will)
        self._bulk = Link("bulk", f"{name}-bulk-{own}", config.broker, inbox)
        self.distributor = Distributor(config.federation, config.transfer, self._bulk)
        self._retained = Retained(self._publish, self._signer.story)

    def start(self) -> None:
        """Connect."""
        self._control.start()
        self._bulk.start()

    def stop(self, goodbye: str) -> None:
        """Say why the coordinator goes, and disconnect in order: the will is not sent."""
        self._retain(Kind.COORD_STATUS, self._status("offline", goodbye))
        self._control.drain(2.0)
        self._control.stop()
        self._bulk.stop()

    def subscribe(self, link: str) -> None:
        """Subscribe to what devices say on the connection `link`, new again."""
        if link == "bulk":
            # What does not come is asked for again, so an acknowledgement of every chunk would be for nothing.
            self._bulk.subscribe(self._topic(Kind.DEV_UP, device="+"), qos=0)
            return
        for kind in (Kind.DEV_SAY, Kind.DEV_STATUS):
            self._control.subscribe(self._topic(kind, device="+"))

    # ---- to other coordinators --------------------------------------------------------------

    def listen_to_coordinators(self) -> None:
        """Subscribe to what coordinators of this federation say to each other."""
        self._control.subscribe(self._topic(Kind.COORD_PEER))

    def to_coordinators(self, message: Probe | Alive) -> None:
        """Say something to them, also while the rest hears nothing."""
        name = self._topic(Kind.COORD_PEER)
        self._control.publish(name, self._signer.wire(name, pack(message)))

    def read_coordinator(self, payload: bytes) -> tuple[bytes, int]:
        """Return what one of them said, and the epoch in its signature; raises PeerError."""
        return self._signer.read_own(self._topic(Kind.COORD_PEER), payload)

    def sign_above(self, heard: int) -> None:
        """Sign above an epoch that devices may have heard of another process: they refuse what is below."""
        if self._signer.outdo(heard):
            with contextlib.suppress(WorkError):  # a full disk: the clock will be beyond it at the next start
                raise_epoch(self._epoch_file, heard + 1)

    # ---- to devices and people --------------------------------------------------------------

    def publish_chunks(self, present: frozenset[str] = frozenset({""}), now: float = 0.0) -> None:
        """Publish what devices asked for, as far as there is room; `present` and `now` release what is due."""
        self.distributor.release(present, now)
        self.published_bytes += self.distributor.publish()

    def say(self, message: Invite | Want | Receipt | Refusal | Result | Takeover) -> None:
        """Send a command to its device."""
        name = self._topic(Kind.DEV_CMD, device=message.device)
        self._publish(name, self._signer.wire(name, encode(message)), retain=False)

    def event(self, story: StoryEvent) -> None:
        """Tell people what happened."""
        name = self._topic(Kind.COORD_EVENT)
        self._publish(name, self._signer.story(name, encode_story(story)), retain=False)

    def metrics(self, round_: Round) -> None:
        """Tell people the mean of the devices' own figures."""
        text = f"Round {round_.number}: mean of the devices' own figures."
        self.event(StoryEvent(event="round-metrics", round=round_.number, metrics=mean_metrics(round_), text=text))

    def round(self, round_: Round | None, number: int = 0, model: Ref | None = None) -> None:
        """Say where the round stands; between rounds, how the last one ended."""
        self._last_round = round_ or self._last_round
        last = self._last_round
        is_current = last is not None and model in (None, last.result or last.base)
        status = round_status(last, self.epoch) if last and is_current else idle_status(self.epoch, number, model)
        self._retain(Kind.COORD_ROUND, status)

    def again(self) -> None:
        """Say all that is retained once more, whenever it is given: a broker may have come back empty."""
        self._retained.expire()

    def standing(self, round_: Round | None, number: int, model: Ref, release: Release | None) -> None:
        """Say where the federation stands: the coordinator, the round, the release."""
        others = OTHERS if self.others else ""
        told = ("The coordinator is here.", others, self.trouble, self._certificate.warning())
        self._retain(Kind.COORD_STATUS, self._status("online", clip(" ".join(filter(None, told)))))
        self.round(round_, number, None if round_ else model)
        if release is not None:
            self._retain(
                Kind.COORD_RELEASE,
                ReleaseStatus(
                    release=release.release,
                    model=release.model,
                    labels=release.labels,
                    round=release.round,
                    text=f"Serve release {release.release}.",
                ),
            )

    def onlookers(self, kind: Kind, document: RoundMembers | PastRounds) -> None:
        """Tell those who look on, in a packet that this broker carries and that they take."""
        self._retained.put(self._topic(kind), fitting(document, self._most_bytes - PACKET_OVERHEAD), self._most_bytes)

    @property
    def _most_bytes(self) -> int:
        """Bytes of a packet that this broker carries, as far as it says, and that fedpi's other processes take."""
        return min(self._control.limits.packet_bytes or PACKET_MOST, PACKET_MOST)

    @property
    def is_connected(self) -> bool:
        """Whether commands and documents reach the broker."""
        return not self.is_silent and self._control.room() > 0

    @property
    def is_acknowledged(self) -> bool:
        """Whether the broker has acknowledged all commands and documents."""
        return self._control.room() == self._control.limits.window

    def forget(self, device: str) -> None:
        """Take a device's retained documents out of the broker."""
        self._retained.remove(self._topic(Kind.DEV_STATUS, device=device))
        self._retained.remove(discovery_topic(self._federation, device))

    def home_assistant(self, name: str, document: bytes) -> None:
        """Tell Home Assistant what to show; it knows no signatures."""
        self._retained.put(name, document, self._control.limits.packet_bytes, is_signed=False)

    def _new_will(self) -> Will:
        name, status = self._topic(Kind.COORD_STATUS), self._status("offline", "The coordinator is gone.")
        return Will(name, self._signer.will(name, encode_story(status)))

    def _status(self, state: Literal["online", "offline"], text: str) -> CoordinatorStatus:
        return CoordinatorStatus(
            federation=self._federation,
            epoch=self.epoch,
            state=state,
            refused=self.refused,
            text=text,
            others=self.others,
        )

    def _retain(self, kind: Kind, document: Story) -> None:
        self._retained.put(self._topic(kind), encode_story(document), self._most_bytes)

    def _publish(self, name: str, payload: bytes, *, retain: bool) -> bool:
        """Publish what devices or people read; returns whether the connection has it."""
        if self.is_silent or self._control.publish(name, payload, retain=retain) is None:
            return False
        self.published_bytes += len(name) + len(payload)
        return True

    def _topic(self, kind: Kind, device: str = "") -> str:
        return topic(kind, self._federation, device=device)
