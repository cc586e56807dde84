"""Rows 11 and 27: two processes with one device id, and two machines with one device's keys."""

import random
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from common.topics import Kind
from coordinator.rehearsal.federation import Process
from tests.faults import copies
from tests.faults.arena import DEVICES, WAIT_S, Arena, NotSurvivedError
from tests.faults.copies import copy_of, name_of_copy
from tests.faults.passing import Way, carries
from tests.faults.row import Outcome, Row
from tests.faults.rows_line import await_

WITHIN_S = 10.0
"""In which one of two machines with the same keys must have ended, once both are connected."""
AHEAD_S = 86_400
"""How far the clock of a machine may be ahead of the other's: it signs with the later epoch, whenever it starts."""
UP = "link=control up"
SAID = "another process speaks as {}, so this one ends"


# ---- 11: two processes with one device id -------------------------------------------------------


def two_of_one_name(arena: Arena, rng: random.Random) -> Outcome:
    """Start a second process of a device, as from a copy of its card, before a round or in it."""
    device, is_in_round = rng.choice(DEVICES), rng.random() < 0.5
    moment = rng.choice([(Kind.DEV_CMD, Way.DOWN, 1), (Kind.DEV_UP, Way.UP, rng.randint(1, 90))])
    begin = arena.proxy.watch(carries(moment[0], moment[1], device), moment[2])
    before, old = arena.log_sizes(), arena.processes.pop(device)
    copies.empty_copy(arena, device)
    with killed_at_the_end(old):
        trial = arena.open() if is_in_round else None
        if is_in_round:
            await_(begin, f"a moment of {device}")
        with copy_of(arena, device) as twin:
            arena.processes[device] = twin
            if trial is None:
                time.sleep(rng.uniform(0.0, 1.5))
                trial = arena.open()
            copies.await_end(arena, [old])
            ended = time.time()
            closed = trial.finish()
            copies.must_say(arena, old, SAID.format(device), before)
            arena.processes.pop(device).stop()
    arena.start_device(device)
    return Outcome(max(closed - ended, 0.0), arena.proxy.tally.resent_bytes, f"{device}; the newer one went on")


# ---- 27: two machines with one device's keys -----------------------------------------------------


@dataclass(frozen=True)
class Copying:
    """How the second machine came about, and when it is switched on."""

    is_later: bool
    """Whether the first one is connected by then; else both are switched on at once."""
    has_state: bool
    """Whether it has all of the first one's disk, or its configuration and keys only."""

    @property
    def sentence(self) -> str:
        """The same for people."""
        when = "the copy comes later" if self.is_later else "both at once"
        return f"{when}, with {'the whole disk' if self.has_state else 'configuration and keys'}"


COPYINGS = tuple(Copying(is_later, has_state) for is_later in (True, False) for has_state in (False, True))


def copied_keys(arena: Arena, rng: random.Random) -> Outcome:
    """Let two machines have a device's keys, before a round or in it; one of them must end."""
    device, is_in_round, copying = rng.choice(DEVICES), rng.random() < 0.5, COPYINGS[arena.seed % len(COPYINGS)]
    begin = arena.proxy.watch(carries(Kind.DEV_UP, Way.UP, device), rng.randint(1, 60))
    trial = arena.open() if is_in_round else None
    if is_in_round:
        await_(begin, f"a moment of {device}")
    before = arena.log_sizes()
    is_restarted = _prepare(arena, device, copying, clock_ahead=rng.choice(["", device, name_of_copy(device)]))
    since = before if is_restarted else {path: size for path, size in before.items() if path.stem != device}
    first = arena.processes.pop(device)
    with killed_at_the_end(first), copy_of(arena, device) as second:
        ended, seconds = _one_ends(arena, (first, second), since)
        struck = time.time()
        copies.must_say(arena, ended, SAID.format(device), before)
        left = arena.processes[device] = second if ended is first else first
        closed = (trial or arena.open()).finish()
        arena.processes.pop(device).stop()
    if left is second:  # the machine that goes on keeps what it knows
        shutil.rmtree(arena.folder / device)
        copies.state_of_copy(arena, device).rename(arena.folder / device)
    arena.start_device(device)
    note = f"{copying.sentence}: {ended.name} ended after {seconds:.1f} s"
    return Outcome(max(closed - struck, 0.0), arena.proxy.tally.resent_bytes, note)


def _prepare(arena: Arena, device: str, copying: Copying, clock_ahead: str) -> bool:
    """Make the second machine's state folder; returns whether the first one was off for that, and is on again.

    The clock of `clock_ahead`, of device or copy, was a day ahead once: what it signs counts as the later.
    """
    is_off = copying.has_state or not copying.is_later
    if is_off:
        arena.processes.pop(device).kill()
    if copying.has_state:
        copies.copy_state(arena, device)
    else:
        copies.empty_copy(arena, device)
        copies.state_of_copy(arena, device).mkdir()
    if clock_ahead:
        (arena.folder / clock_ahead / "epoch").write_text(str(int(time.time()) + AHEAD_S), encoding="ascii")
    if is_off:
        before = arena.log_sizes()
        arena.start_device(device)
        if copying.is_later:
            copies.await_words(arena, device, UP, before)
    return is_off


def _one_ends(arena: Arena, machines: tuple[Process, ...], since: dict[Path, int]) -> tuple[Process, float]:
    """Wait until one of two machines ends; returns which, and how many seconds both had been connected by then."""
    both_at: float | None = None
    end = time.monotonic() + WAIT_S
    while (now := time.monotonic()) < end:
        if (ended := next((one for one in machines if copies.has_ended(one)), None)) is not None:
            return ended, 0.0 if both_at is None else now - both_at
        if both_at is None and all(re.search(UP, arena.logged(one.name, since)) for one in machines):
            both_at, end = now, now + WITHIN_S
        arena.check()
        time.sleep(0.01)
    raise NotSurvivedError(f"two machines speak as {machines[0].name} for {WITHIN_S:g} s, and neither ends")


@contextmanager
def killed_at_the_end(process: Process) -> Iterator[None]:
    """Leave nothing behind of a process that is not among those that must run."""
    try:
        yield
    finally:
        process.kill()


ROWS = (
    Row(
        number=11,
        fault="two processes with one device id",
        how="two devices",
        holds="no livelock; the newer wins; operator told",
        inject=two_of_one_name,
        expects=(r"another process speaks as", r"round=\d+ refused: "),
    ),
    Row(
        number=27,
        fault="two machines with one device's keys",
        how="a copy of the configuration, of the whole disk; one comes later, or both are switched on at once",
        holds="one ends with exit code 78 within 10 s; the round goes on",
        inject=copied_keys,
        expects=(r"another process speaks as", r"round=\d+ refused: "),
        short_seeds=(0,),
    ),
)
