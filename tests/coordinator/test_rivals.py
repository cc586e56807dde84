"""Coordinators of one federation that look for each other, over a broker of lists: no clock, no chance."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import count

import pytest

from common.coordinators import Alive, Probe, Stage
from coordinator import rivals
from coordinator.rivals import BLIND_S, GONE_S, SILENCE_S, Rivals

HEARTBEAT_S = 30.0
STEP_S = 0.25
NONCES = (f"{number:x}" for number in count(1))


@dataclass
class Process:
    """A coordinator as the loop would drive it."""

    state: Rivals
    is_dead: bool = False


@dataclass
class Room:
    """A broker that gives everything to everybody who is connected, their own messages too."""

    now: float = 0.0
    processes: dict[str, Process] = field(default_factory=dict)
    said: list[Probe | Alive] = field(default_factory=list)
    is_deaf: bool = False

    def start(self, name: str, stage: Stage = "starting", *, is_connected: bool = True) -> None:
        process = Process(Rivals(name, stage, self.now, HEARTBEAT_S))
        self.processes[name] = process
        if is_connected:
            process.state = rivals.connect(process.state, self.now)

    def say(self, message: Probe | Alive) -> None:
        self.said.append(message)
        answers: list[Alive] = []
        for process in self._live():
            if process.state.connected_at is not None and not self.is_deaf:
                process.state, answer = rivals.hear(process.state, message, self.now)
                answers += [] if answer is None else [answer]
        for answer in answers:
            self.say(answer)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            for process in self._live():
                process.state = rivals.tick(process.state, self.now)
                if process.state.is_due(self.now):
                    process.state, probe = rivals.ask(process.state, next(NONCES), self.now)
                    self.say(probe)
            self.now += STEP_S

    def state(self, name: str) -> Rivals:
        return self.processes[name].state

    def _live(self) -> Iterable[Process]:
        """Those that have not ended."""
        return [p for p in self.processes.values() if not p.is_dead and p.state.ended_by is None]


@pytest.fixture
def room() -> Room:
    return Room()


def test_one_that_hears_nobody_runs_after_a_short_silence(room: Room) -> None:
    room.start("a")
    room.run(SILENCE_S - STEP_S)
    assert not room.state("a").may_speak
    assert not room.state("a").has_listened(room.now)
    room.run(3 * STEP_S)
    assert room.state("a").may_speak
    assert room.state("a").has_listened(room.now)
    assert room.state("a").may_open(room.now)


@pytest.mark.parametrize("newcomer", ["0", "f"])
def test_one_that_starts_ends_where_another_runs_and_the_other_goes_on(room: Room, newcomer: str) -> None:
    room.start("a")
    room.run(5.0)
    room.start(newcomer)
    room.run(5.0)
    assert room.state(newcomer).ended_by == "running"
    assert room.state("a").may_open(room.now)
    assert not room.state("a").is_met


def test_of_two_that_start_at_once_one_is_left(room: Room) -> None:
    room.start("a")
    room.start("b")
    room.run(10.0)
    assert [room.state(name).ended_by for name in "ab"] == ["starting", None]
    assert room.state("b").may_open(room.now)


@pytest.mark.parametrize("other", ["starting", "running"])
def test_one_that_takes_over_waits_until_the_other_has_ended(room: Room, other: Stage) -> None:
    room.start("f")
    room.run(5.0 if other == "running" else STEP_S)
    room.start("b", "taking-over")
    room.run(STEP_S)
    assert not room.state("b").may_speak
    room.run(5.0)
    assert (room.state("f").ended_by, room.state("b").ended_by) == ("taking-over", None)
    assert room.state("b").may_open(room.now)


def test_of_two_that_take_over_one_is_left(room: Room) -> None:
    room.start("a", "taking-over")
    room.start("b", "taking-over")
    room.run(10.0)
    assert [room.state(name).ended_by for name in "ab"] == ["taking-over", None]
    assert room.state("b").may_speak


def test_two_that_meet_while_they_run_open_no_round_until_one_is_gone(room: Room) -> None:
    for name in "ab":
        room.start(name, "running")
    room.run(5.0)
    assert [room.state(name).is_met for name in "ab"] == [True, True]
    assert not room.state("a").may_open(room.now)
    room.run(3 * HEARTBEAT_S)
    assert [room.state(name).is_met for name in "ab"] == [True, True]
    room.processes["b"].is_dead = True
    room.run(GONE_S + 3.0)
    assert room.state("a").may_open(room.now)


def test_two_that_run_meet_when_the_connection_of_one_comes_back(room: Room) -> None:
    room.start("a")
    room.run(5.0)
    room.start("b", is_connected=False)
    room.processes["b"].state = replace(room.state("b"), stage="running")
    room.run(2 * HEARTBEAT_S)
    assert not room.state("a").is_met
    room.processes["b"].state = rivals.connect(room.state("b"), room.now)
    room.run(2.0)
    assert [room.state(name).is_met for name in "ab"] == [True, True]


def test_time_without_a_connection_ends_no_meeting(room: Room) -> None:
    for name in "ab":
        room.start(name, "running")
    room.run(5.0)
    for name in "ab":
        room.processes[name].state = rivals.disconnect(room.state(name))
    room.run(10 * GONE_S)
    assert room.state("a").is_met


def test_what_was_said_before_is_no_sign_of_life(room: Room) -> None:
    for name in "ab":
        room.start(name, "running")
    room.run(10.0)
    room.processes["b"].is_dead = True
    recorded = [said for said in room.said if said.process == "b"]
    end = room.now + GONE_S + 5.0
    while room.now < end:
        for said in recorded:
            room.say(said)
        room.run(1.0)
    assert not room.state("a").is_met
    room.start("c")
    for said in recorded:
        room.say(said)
    room.run(5.0)
    assert room.state("c").ended_by == "running"  # a lives, b does not count


def test_a_replayed_question_of_one_that_took_over_ends_nobody(room: Room) -> None:
    room.start("b", "taking-over")
    room.run(5.0)
    room.processes["b"].is_dead = True
    recorded = [said for said in room.said if said.process == "b"]
    room.start("a")
    room.run(5.0)
    for said in recorded:
        room.say(said)
    room.run(5.0)
    assert room.state("a").may_open(room.now)


def test_a_broker_that_does_not_carry_the_questions_keeps_nobody_from_work(room: Room) -> None:
    room.is_deaf = True
    room.start("a")
    room.run(BLIND_S - 1.0)
    assert not room.state("a").may_speak
    room.run(2.0)
    assert room.state("a").may_speak


def test_without_a_broker_rounds_are_opened_after_a_while(room: Room) -> None:
    room.start("a", is_connected=False)
    room.run(rivals.ALONE_S - 1.0)
    assert not room.state("a").may_open(room.now)
    room.run(2.0)
    assert room.state("a").may_open(room.now)
    assert not room.state("a").may_speak


def test_a_process_that_was_stopped_meanwhile_takes_that_for_no_silence(room: Room) -> None:
    room.start("a")
    room.run(5.0)
    room.start("b")
    state, probe = rivals.ask(room.state("b"), "ab", room.now)
    state, _ = rivals.hear(state, probe, room.now)
    state = rivals.tick(rivals.excuse(state, 60.0), room.now + 60.0)
    assert not state.may_speak
