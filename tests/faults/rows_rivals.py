"""Row 26: a second coordinator of the federation, started beside the first one, in its place, or met again."""

import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from broker.connection import Connection, Message, Session
from common.config import BrokerConfig
from common.topics import Kind, topic
from coordinator.rehearsal.federation import FEDERATION, Federation, Process
from coordinator.store import Store
from tests.conftest import find_ports
from tests.faults import copies
from tests.faults.arena import WAIT_S, Arena, NotSurvivedError, Trial
from tests.faults.copies import SERVES, await_words, copy_of, name_of_copy
from tests.faults.passing import COORDINATOR
from tests.faults.proxy import Proxy
from tests.faults.recorder import Recorder, say_again
from tests.faults.row import Outcome, Row
from tests.faults.rows_line import await_
from tests.faults.rows_restore import LOST_SEED
from tests.faults.scenarios import moment_of

OTHER = name_of_copy(COORDINATOR)
MEETING = "another coordinator serves the federation rehearsal as well: no round is opened"
BESIDE = "another coordinator serves the federation rehearsal, so this one ends: stop that one, .* with --take-over"
REPLACED = "another coordinator has taken over the federation rehearsal, so this one ends"
STILL_S = 2.0
"""How long nothing must be opened by two that have met: a round is opened within a quarter of a second."""


# ---- started beside a live one, and in its place ----------------------------------------------------


def beside(arena: Arena, rng: random.Random) -> Outcome:
    """Start a second coordinator beside the live one, between rounds or in one; it must end and change nothing."""
    trial, before = _maybe_open(arena, rng), arena.log_sizes()
    copies.empty_copy(arena, COORDINATOR)
    with copy_of(arena, COORDINATOR) as second:
        copies.await_end(arena, [second])
        copies.must_say(arena, second, BESIDE, before)
    return _go_on(arena, trial, f"a second one, started beside the live one{_where(trial)}, ended and named it")


def takes_over(arena: Arena, rng: random.Random) -> Outcome:
    """Move the coordinator back from a second machine that runs on: from a backup, with --take-over."""
    arena.store.close()
    arena.processes.pop(COORDINATOR).stop()
    copies.copy_state(arena, COORDINATOR)
    before = arena.log_sizes()
    with copy_of(arena, COORDINATOR, training={"seed": LOST_SEED}) as second:
        await_words(arena, OTHER, SERVES, before)
        if is_open := rng.random() < 0.5:  # it will be lost
            moment = moment_of(arena, rng)
            _ask(arena)
            await_(moment, "a moment of the round of the other one")
        arena.processes[COORDINATOR] = copies.launch(arena, COORDINATOR, COORDINATOR, ["--take-over"])
        copies.await_end(arena, [second])
        copies.must_say(arena, second, REPLACED, before)
    arena.store = arena.open_store(WAIT_S)
    await_words(arena, COORDINATOR, SERVES, before)
    return _go_on(arena, None, f"one takes over {'in a round' if is_open else 'between rounds'} of the other")


# ---- two that were apart ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Apart:
    """A second coordinator that serves the same federation, and a way to let the two meet."""

    process: Process
    meet: Callable[[], None]


Separate: TypeAlias = Callable[[Arena, dict[Path, int]], AbstractContextManager[Apart]]


def meets_after_a_black_hole(arena: Arena, rng: random.Random) -> Outcome:
    """Cut the live one off, let a second one serve its devices in its place, and mend the line."""
    return _meets(arena, rng, _in_a_hole, "a black hole")


def meets_after_a_split(arena: Arena, rng: random.Random) -> Outcome:
    """Let a second one serve at a broker of its own, and then find the way to everybody else's."""
    return _meets(arena, rng, _at_another_broker, "two brokers")


def _meets(arena: Arena, rng: random.Random, separate: Separate, what: str) -> Outcome:
    """Let two that were separated meet, and stop the second one: until then nothing must be opened."""
    copies.empty_copy(arena, COORDINATOR)
    trial, before = _maybe_open(arena, rng), arena.log_sizes()
    what += _where(trial)
    with separate(arena, before) as other:
        if rng.random() < 0.5:  # a round of its own goes on, too
            _ask(arena)
        other.meet()
        for name in (COORDINATOR, OTHER):
            await_words(arena, name, MEETING, before)
        opened = _opened(arena)
        _ask(arena)
        trial = _ask_again(arena, trial)
        time.sleep(STILL_S)
        if _opened(arena) != opened:
            raise NotSurvivedError("one of two coordinators that have met opened a round")
        (other.process.kill if rng.random() < 0.5 else other.process.stop)()
    return _go_on(arena, trial, f"{what}: both warned and opened nothing until one was stopped")


@contextmanager
def _in_a_hole(arena: Arena, before: dict[Path, int]) -> Iterator[Apart]:
    arena.proxy.hole(COORDINATOR)
    with _through_a_line(arena, arena.port, before) as (process, _):
        yield Apart(process, lambda: arena.proxy.lift(COORDINATOR))


@contextmanager
def _at_another_broker(arena: Arena, before: dict[Path, int]) -> Iterator[Apart]:
    shutil.rmtree(arena.folder / "apart", ignore_errors=True)
    with Federation(arena.folder / "apart") as apart:
        apart.start_broker("mosquitto")
        with _through_a_line(arena, apart.port, before) as (process, line):

            def meet() -> None:
                line.broker_port = arena.port
                line.reset()

            yield Apart(process, meet)


@contextmanager
def _through_a_line(arena: Arena, port: int, before: dict[Path, int]) -> Iterator[tuple[Process, Proxy]]:
    """Serve by a second coordinator whose line leads to the broker at `port`."""
    line = Proxy(port, find_ports(1))
    line.start()
    try:
        with copy_of(arena, COORDINATOR, broker={"port": line.port}) as process:
            await_words(arena, OTHER, SERVES, before)
            yield process, line
    finally:
        line.stop()


# ---- what is retained or said again is not alive --------------------------------------------------


def replayed(arena: Arena, rng: random.Random) -> Outcome:
    """Retain the status of a coordinator that is gone, and say again all that two said to each other.

    So while the next one starts, and while it runs: it must serve, and open its rounds.
    """
    recorder = Recorder(arena, topic(Kind.COORD_PEER, FEDERATION), topic(Kind.COORD_STATUS, FEDERATION))
    recorder.start()
    beside(arena, rng)
    arena.processes.pop(COORDINATOR).kill()
    recorded = [message for message in recorder.stop() if b'"state":"offline"' not in message.payload]
    before = arena.log_sizes()
    _retain_last_status(arena, recorded)
    arena.start_coordinator()
    while SERVES not in arena.logged(COORDINATOR, before):
        say_again(arena, recorded)
        arena.check()
    trial = _maybe_open(arena, rng)
    count = say_again(arena, recorded)
    note = (
        f"{count} messages of one that is gone and its status, said again at the start and{_where(trial) or ' later'}"
    )
    outcome = _go_on(arena, trial, note)
    if MEETING in arena.logged(COORDINATOR, before):
        raise NotSurvivedError("what was said again was taken for another coordinator")
    return outcome


def _retain_last_status(arena: Arena, recorded: Sequence[Message]) -> None:
    name = topic(Kind.COORD_STATUS, FEDERATION)
    last = [message.payload for message in recorded if message.topic == name][-1]
    with Connection(BrokerConfig(port=arena.port), Session("again", "5")) as connection:
        connection.publish(name, last, retain=True)


# ---- rounds meanwhile -----------------------------------------------------------------------------


def _maybe_open(arena: Arena, rng: random.Random) -> Trial | None:
    """Open a round up to one of its moments, in every other case."""
    if rng.random() < 0.5:
        return None
    moment = moment_of(arena, rng)
    trial = arena.open()
    await_(moment, "a moment of the round")
    return trial


def _ask_again(arena: Arena, trial: Trial | None) -> Trial:
    """Ask for a round beside the one that is open, if there is one."""
    if trial is None:
        return arena.open()
    arena.store.ask_for(1)
    return replace(trial, rounds=trial.rounds + 1)


def _go_on(arena: Arena, trial: Trial | None, note: str) -> Outcome:
    """Finish what is open, or a new round."""
    ended = time.time()
    closed = (trial or arena.open()).finish()
    return Outcome(max(closed - ended, 0.0), arena.proxy.tally.resent_bytes, note)


def _where(trial: Trial | None) -> str:
    return " in a round" if trial else ""


def _ask(arena: Arena) -> None:
    """Ask the second coordinator for a round."""
    store = Store(copies.state_of_copy(arena, COORDINATOR) / arena.journal.name)
    store.ask_for(1)
    store.close()


def _opened(arena: Arena) -> tuple[int, int]:
    """Return the last round of either."""
    other = Store(copies.state_of_copy(arena, COORDINATOR) / arena.journal.name)
    last = other.last_round()
    other.close()
    return arena.store.last_round(), last


WAYS = (beside, takes_over, meets_after_a_black_hole, meets_after_a_split, replayed)


def second_coordinator(arena: Arena, rng: random.Random) -> Outcome:
    """Let there be a second coordinator, each of `WAYS` in turn."""
    return WAYS[arena.seed % len(WAYS)](arena, rng)


ROWS = (
    Row(
        number=26,
        fault="a second coordinator: started beside the first, in its place, met after a split; a status said again",
        how="second process; a black hole, a second broker; recorder",
        holds="one ends and says why; two that meet warn and open no round until one is stopped; nobody fears a replay",
        inject=second_coordinator,
        expects=(MEETING, r"round=\d+ refused: "),
        short_seeds=(0, 1),
        is_waiting=True,
    ),
)
