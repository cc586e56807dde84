"""Keeps those informed who only look on: `watch` and Home Assistant."""

import time

from common.chronicle import PastRound, RoundMembers
from common.topics import Kind
from coordinator.chronicler import LAST_ROUNDS, Stopwatch, clock, members, past
from coordinator.collector import Collector
from coordinator.config import CoordinatorConfig
from coordinator.home_assistant import discovery
from coordinator.round_state import Phase, Round
from coordinator.store import Store
from coordinator.voice import Voice

NEWS_S = 1.0
"""How often onlookers are told how far the devices are, at most; with many devices, more seldom."""
MEMBERS_A_SECOND = 50


class Onlookers:
    """Tells how far every device is, how the last rounds went, and what Home Assistant is to show."""

    def __init__(self, config: CoordinatorConfig, store: Store, collector: Collector, voice: Voice) -> None:
        self._config = config
        self._store = store
        self._collector = collector
        self._voice = voice
        self._watch = Stopwatch()
        self._told: tuple[int, Phase] | None = None
        self._next_news = 0.0
        self._members: RoundMembers | None = None
        self._past: tuple[PastRound, ...] | None = None

    def look(self, round_: Round, *, is_settled: bool = True) -> None:
        """Look at a round that may have changed, after it is in the journal; tells at once when its phase did.

        `is_settled`: whether a device was settled by the change. Otherwise nobody looks through all of them.
        """
        now = time.monotonic()
        turn = round_.number, round_.phase
        is_news = turn != self._told or now >= self._next_news
        if is_settled or is_news:
            self._watch = clock(self._watch, round_, now)
        if not is_news:
            return
        self._told = turn
        self._next_news = now + max(NEWS_S, len(round_.members) / MEMBERS_A_SECOND)
        self._members = members(round_, self._collector.received(), self._watch, now)
        self._voice.onlookers(Kind.COORD_MEMBERS, self._members)
        if round_.phase in {Phase.COMMITTED, Phase.ABANDONED}:
            self._tell_past(round_.number)

    def everything(self) -> None:
        """Give all that onlookers are told to the voice, which says what the broker lacks."""
        self._tell_past(self._store.last_round())
        if self._members is not None:
            self._voice.onlookers(Kind.COORD_MEMBERS, self._members)
        if self._config.home_assistant.discovery:
            names = [row.device for row in self._store.devices()]
            for name, payload in discovery(self._config.federation, names):
                self._voice.home_assistant(name, payload)

    def _tell_past(self, number: int) -> None:
        """Tell how the rounds up to `number` went; what was read of the journal before is not read again."""
        known = self._past[-1].round if self._past else max(number - LAST_ROUNDS, 0)
        new = self._store.rounds(known) if self._past is None or known < number else []
        told = past(new, self._past or ())
        self._past = told.rounds
        self._voice.onlookers(Kind.COORD_ROUNDS, told)
