"""Asks for other coordinators of the federation, and tells people of one: `rivals` decides."""

import logging
import secrets
import time

from common.coordinators import Alive, Probe, Stage
from common.errors import ConfigError
from common.journal import tags
from common.messages import decode
from coordinator import rivals
from coordinator.config import CoordinatorConfig
from coordinator.rows import TROUBLE
from coordinator.store import Store
from coordinator.voice import Voice

log = logging.getLogger(__name__)


class ReplacedError(ConfigError):
    """Another coordinator serves the federation, so this process ends: a restart would not help."""


class RivalWatch:
    """Keeps the coordinator silent until nobody else is known to serve its federation."""

    def __init__(self, config: CoordinatorConfig, store: Store, voice: Voice, *, takes_over: bool) -> None:
        self._federation = config.federation
        self._store = store
        self._voice = voice
        self._signed_by_other = 0
        """The highest epoch in a signature of another process."""
        stage: Stage = "taking-over" if takes_over else "starting"
        self._rivals = rivals.Rivals(voice.epoch, stage, time.monotonic(), config.broker.heartbeat_s)
        self._tell("")

    @property
    def may_speak(self) -> bool:
        """Whether devices may hear of this process."""
        return self._rivals.may_speak

    @property
    def is_met(self) -> bool:
        """Whether another coordinator runs as well."""
        return self._rivals.is_met

    def has_listened(self, now: float) -> bool:
        """Whether it is known by now that no other coordinator answers, or there is no broker by which to ask."""
        return self._rivals.has_listened(now)

    def may_open(self, now: float) -> bool:
        """Whether a round may be opened."""
        return self._rivals.may_open(now)

    def connected(self, link: str, now: float) -> None:
        """Listen on the control connection when it is new again, and ask."""
        if link != "control":
            return
        self._voice.listen_to_coordinators()
        self._rivals = rivals.connect(self._rivals, now)
        self._ask(now)

    def disconnected(self, link: str) -> None:
        """Take note when the control connection is gone."""
        if link == "control":
            self._rivals = rivals.disconnect(self._rivals)

    def excuse(self, missed_s: float) -> None:
        """Take a time during which the loop did not listen for no silence."""
        if missed_s:
            self._rivals = rivals.excuse(self._rivals, missed_s)

    def receive(self, payload: bytes, now: float) -> None:
        """Take what a coordinator says to others, this one included.

        Raises PeerError for what breaks the protocol, ReplacedError where this process must end.
        """
        message, epoch = self._voice.read_coordinator(payload)
        said: Probe | Alive = decode(message, Probe | Alive)
        before = self._rivals
        self._rivals, answer = rivals.hear(before, said, now)
        if answer is not None:
            self._voice.to_coordinators(answer)
        if isinstance(said, Alive) and self._rivals is not before:
            self._signed_by_other = max(self._signed_by_other, epoch)
        if self._rivals.ended_by is not None:
            self._voice.is_silent = True  # the other one speaks
            raise ReplacedError(self._farewell())

    def tick(self, now: float) -> bool:
        """Ask when it is time; returns whether something changed that everybody is to hear."""
        before = self._rivals
        self._rivals = rivals.tick(before, now)
        if self._rivals.is_due(now):
            self._ask(now)
        has_begun = self._rivals.may_speak and not before.may_speak
        if has_begun and before.is_blind:
            log.warning("the broker does not carry coord/peer: another coordinator would not be noticed")
        has_gone = before.is_met and not self._rivals.is_met
        if has_begun or has_gone:
            self._voice.sign_above(self._signed_by_other)
            self._voice.again()  # what the broker retains is what the other one said last
        if has_begun:
            self._voice.is_silent = False
            log.info("serves the federation %s: no other coordinator is heard", self._federation)
        is_warned = bool(self._voice.others)
        if self._rivals.is_met != is_warned:
            self._warn()
        return has_begun or self._rivals.is_met != is_warned

    def _ask(self, now: float) -> None:
        self._rivals, probe = rivals.ask(self._rivals, secrets.token_hex(16), now)
        self._voice.to_coordinators(probe)

    def _warn(self) -> None:
        """Tell people of a meeting, or that the other coordinator is gone."""
        self._voice.others = int(self._rivals.is_met)
        if self._rivals.is_met:
            text = f"another coordinator serves the federation {self._federation} as well"
            text += ": no round is opened until one of the two is stopped"
            log.error("%s", text, extra=tags("two-coordinators"))
            self._tell(text)
        else:
            log.info("the other coordinator is gone")
            self._tell("")

    def _tell(self, text: str) -> None:
        if (self._store.fact(TROUBLE) or "") != text:
            self._store.set_fact(TROUBLE, text)

    def _farewell(self) -> str:
        what = f"another coordinator serves the federation {self._federation}"
        if self._rivals.stage == "running":
            return f"another coordinator has taken over the federation {self._federation}, so this one ends"
        return f"{what}, so this one ends: stop that one, or take its place with --take-over"
