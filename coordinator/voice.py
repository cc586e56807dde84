"""Everything that the coordinator says: its two connections, its topics, its count of published bytes."""

import secrets
from collections.abc import Callable
from typing import Literal

from common.link import Link, Will
from common.messages import (
    CoordinatorStatus,
    Invite,
    Receipt,
    Ref,
    Refusal,
    ReleaseStatus,
    Story,
    StoryEvent,
    Want,
    encode,
    encode_story,
)
from common.topics import Kind, topic
from coordinator.config import CoordinatorConfig
from coordinator.distributor import Distributor
from coordinator.round import Round
from coordinator.store import Release
from coordinator.story import idle_status, mean_metrics, round_status


class Voice:
    """The coordinator's side of the wire. Two connections, so that bulk cannot delay commands or the will."""

    def __init__(self, config: CoordinatorConfig, deliver: Callable[[object], None]) -> None:
        self.published_bytes = 0
        self.refused = 0
        self._federation = config.federation
        self._epoch = secrets.token_hex(4)
        self._last_round: Round | None = None
        will = Will(self._topic(Kind.COORD_STATUS), encode_story(self._status("offline", "The coordinator is gone.")))
        name = f"fedpi-{config.federation}-coord"
        self._control = Link("control", f"{name}-control", config.broker, deliver, will=will)
        self._bulk = Link("bulk", f"{name}-bulk", config.broker, deliver)
        self.distributor = Distributor(config.federation, config.transfer, self._bulk)

    def start(self) -> None:
        """Connect."""
        self._control.start()
        self._bulk.start()

    def stop(self) -> None:
        """Say goodbye and disconnect."""
        self._retain(Kind.COORD_STATUS, self._status("offline", "The coordinator stopped."))
        self._control.drain(2.0)
        self._control.stop()
        self._bulk.stop()

    def subscribe(self, link: str) -> None:
        """Subscribe to what the connection `link`, new again, is for."""
        if link == "bulk":
            self._bulk.subscribe(self._topic(Kind.DEV_UP, device="+"))
            return
        for kind in (Kind.DEV_SAY, Kind.DEV_STATUS):
            self._control.subscribe(self._topic(kind, device="+"))

    def publish_chunks(self, present: frozenset[str] = frozenset({""}), now: float = 0.0) -> None:
        """Publish what devices asked for, as far as there is room; `present` and `now` release what is due."""
        self.distributor.release(present, now)
        self.published_bytes += self.distributor.publish()

    def say(self, message: Invite | Want | Receipt | Refusal) -> None:
        """Send a command to its device."""
        self._publish(self._topic(Kind.DEV_CMD, device=message.device), encode(message), retain=False)

    def event(self, story: StoryEvent) -> None:
        """Tell people what happened."""
        self._publish(self._topic(Kind.COORD_EVENT), encode_story(story), retain=False)

    def metrics(self, round_: Round) -> None:
        """Tell people the mean of the devices' own figures."""
        text = f"Round {round_.number}: mean of the devices' own figures."
        self.event(StoryEvent(event="round-metrics", round=round_.number, metrics=mean_metrics(round_), text=text))

    def round(self, round_: Round | None, number: int = 0, model: Ref | None = None) -> None:
        """Say where the round stands; between rounds, how the last one ended."""
        self._last_round = round_ or self._last_round
        last = self._last_round
        is_current = last is not None and model in (None, last.result or last.base)
        status = round_status(last, self._epoch) if last and is_current else idle_status(self._epoch, number, model)
        self._retain(Kind.COORD_ROUND, status)

    def everything(self, round_: Round | None, number: int, model: Ref, release: Release | None) -> None:
        """Say all that is retained."""
        self._retain(Kind.COORD_STATUS, self._status("online", "The coordinator is here."))
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

    def _status(self, state: Literal["online", "offline"], text: str) -> CoordinatorStatus:
        return CoordinatorStatus(
            federation=self._federation, epoch=self._epoch, state=state, refused=self.refused, text=text
        )

    def _retain(self, kind: Kind, document: Story) -> None:
        self._publish(self._topic(kind), encode_story(document), retain=True)

    def _publish(self, name: str, payload: bytes, *, retain: bool) -> None:
        self._control.publish(name, payload, retain=retain)
        self.published_bytes += len(name) + len(payload)

    def _topic(self, kind: Kind, device: str = "") -> str:
        return topic(kind, self._federation, device=device)
