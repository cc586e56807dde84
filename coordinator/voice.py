"""Everything that the coordinator says: its two connections, its topics, its count of published bytes."""

import secrets
from typing import Literal

from common.chronicle import PastRounds, RoundMembers
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
from common.signing import Signer, next_epoch
from common.tls import CertificateWatch
from common.topics import Kind, topic
from coordinator.chronicler import fitting
from coordinator.config import CoordinatorConfig
from coordinator.distributor import Distributor
from coordinator.home_assistant import discovery_topic
from coordinator.round_state import Round
from coordinator.store import Release
from coordinator.story import idle_status, mean_metrics, round_status


class Voice:
    """The coordinator's side of the wire. Two connections, so that bulk cannot delay commands or the will."""

    def __init__(self, config: CoordinatorConfig, inbox: Inbox) -> None:
        self.published_bytes = 0
        self.refused = 0
        self.trouble = ""
        """What is wrong here that the coordinator's status is to tell."""
        self._federation = config.federation
        self.epoch = secrets.token_hex(8)
        """Drawn at each start; rounds that this start opens have it as their generation."""
        self._signer = Signer(config.signing, next_epoch(config.folder / "epoch") if config.signing else 0)
        self._last_round: Round | None = None
        self._certificate = CertificateWatch(config.broker.tls)
        name, own = f"fedpi-{config.federation}-coord", secrets.token_hex(4)  # nobody can take over what nobody knows
        self._control = Link("control", f"{name}-control-{own}", config.broker, inbox, will=self._new_will)
        self._bulk = Link("bulk", f"{name}-bulk-{own}", config.broker, inbox)
        self.distributor = Distributor(config.federation, config.transfer, self._bulk)

    def start(self) -> None:
        """Connect."""
        self._control.start()
        self._bulk.start()

    def stop(self, goodbye: str) -> None:
        """Say why the coordinator goes, and disconnect."""
        self._tell(Kind.COORD_STATUS, self._status("offline", goodbye))
        self._control.drain(2.0)
        self._control.stop()
        self._bulk.stop()

    def subscribe(self, link: str) -> None:
        """Subscribe to what the connection `link`, new again, is for."""
        if link == "bulk":
            # What does not come is asked for again, so an acknowledgement of every chunk would be for nothing.
            self._bulk.subscribe(self._topic(Kind.DEV_UP, device="+"), qos=0)
            return
        for kind in (Kind.DEV_SAY, Kind.DEV_STATUS):
            self._control.subscribe(self._topic(kind, device="+"))

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
        self._tell(Kind.COORD_EVENT, story, retain=False)

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
        self._tell(Kind.COORD_ROUND, status)

    def everything(self, round_: Round | None, number: int, model: Ref, release: Release | None) -> None:
        """Say all that is retained."""
        told = ("The coordinator is here.", self.trouble, self._certificate.warning())
        self._tell(Kind.COORD_STATUS, self._status("online", clip(" ".join(filter(None, told)))))
        self.round(round_, number, None if round_ else model)
        if release is not None:
            self._tell(
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
        name, most = self._topic(kind), self._control.limits.packet_bytes
        payload = fitting(document, min(most or PACKET_MOST, PACKET_MOST) - PACKET_OVERHEAD)
        self.retain(name, self._signer.story(name, payload))

    @property
    def is_connected(self) -> bool:
        """Whether commands and documents reach the broker."""
        return self._control.room() > 0

    @property
    def is_acknowledged(self) -> bool:
        """Whether the broker has acknowledged all commands and documents."""
        return self._control.room() == self._control.limits.window

    def forget(self, device: str) -> None:
        """Take a device's retained documents out of the broker: an empty one takes the place of each."""
        self.retain(self._topic(Kind.DEV_STATUS, device=device), b"")
        self.retain(discovery_topic(self._federation, device), b"")

    def retain(self, name: str, payload: bytes) -> None:
        """Publish what is to be heard by whoever comes later."""
        self._publish(name, payload, retain=True)

    def _new_will(self) -> Will:
        name, status = self._topic(Kind.COORD_STATUS), self._status("offline", "The coordinator is gone.")
        return Will(name, self._signer.will(name, encode_story(status)))

    def _status(self, state: Literal["online", "offline"], text: str) -> CoordinatorStatus:
        return CoordinatorStatus(
            federation=self._federation, epoch=self.epoch, state=state, refused=self.refused, text=text
        )

    def _tell(self, kind: Kind, document: Story, *, retain: bool = True) -> None:
        name = self._topic(kind)
        self._publish(name, self._signer.story(name, encode_story(document)), retain=retain)

    def _publish(self, name: str, payload: bytes, *, retain: bool) -> None:
        self._control.publish(name, payload, retain=retain)
        self.published_bytes += len(name) + len(payload)

    def _topic(self, kind: Kind, device: str = "") -> str:
        return topic(kind, self._federation, device=device)
