"""Rows 20, 22 and 23: trainings that do not end well, stragglers, devices that come and go."""

import random
import signal
import time
from contextlib import nullcontext
from typing import Any

import psutil

from common.messages import Accept
from common.topics import Kind
from tests.faults.arena import DEVICES, Arena, NotSurvivedError, Setup
from tests.faults.passing import Passing, Way, carries
from tests.faults.row import Outcome, Row
from tests.faults.rows_line import await_
from tests.faults.scenarios import changed, govern

TRAINING = Setup(sleep_s=0.4, deadline_s=6.0, grace_s=1.0)
STRAGGLING = Setup(deadline_s=6.0, grace_s=1.0)
"""Deadlines leave seconds to start a trainer in, which a busy machine needs."""
SELECTION_S = 1.0
MARGIN_S = 5.0
"""Beside a deadline: devices are selected before it, and averaged after it. To wait for the straggler has no end."""


# ---- 20: the trainer --------------------------------------------------------------------------


def trainer_fails(arena: Arena, rng: random.Random) -> Outcome:
    """Let one device's training process end, hang or fail; the round goes on, and counts the device in the next."""
    device = rng.choice(DEVICES)
    way = ("killed", "hung", "failing", "without TensorFlow", "over its memory")[arena.seed % 5]
    sections: dict[str, dict[str, Any]] = {
        "failing": {"data": {"loader": "tests.faults.sites:no_site"}},
        "without TensorFlow": {"models": {"numpy": "tests.faults.sites:without_tensorflow"}},
        "over its memory": {"models": {"numpy": "tests.faults.sites:greedy"}, "trainer": {"memory_mb": 200}},
    }
    with changed(arena, device, **sections[way]) if way in sections else nullcontext():
        trial = arena.open()
        if way in {"killed", "hung"}:
            child = _trainer(arena, device, rng.uniform(0.0, 0.3))
            child.send_signal(signal.SIGKILL if way == "killed" else signal.SIGSTOP)
        struck = time.time()
        closed = trial.finish(set(DEVICES) - {device})
        _must_be_failed(arena, trial.first, device)
    arena.settle()
    arena.open().finish()  # it counts again: nothing of the failed training is left
    reason = _reason(arena, trial.first, device)
    return Outcome(max(closed - struck, 0.0), arena.proxy.tally.resent_bytes, f"{device} {way}: {reason}")


def _trainer(arena: Arena, device: str, after_s: float) -> psutil.Process:
    """Return the training process of a device, `after_s` after it has begun to train."""
    since = arena.log_sizes()
    arena.until(lambda: "now training" in arena.logged(device, since), f"{device} in training")
    time.sleep(after_s)
    return next(
        child for child in psutil.Process(arena.processes[device].pid).children() if "device.runner" in child.cmdline()
    )


def _must_be_failed(arena: Arena, number: int, device: str) -> None:
    standing = next((row.standing for row in arena.store.ledger(number) if row.device == device), "nothing")
    if standing not in {"failed", "missing"}:
        raise NotSurvivedError(f"the ledger says of {device}, whose training failed: {standing}")


def _reason(arena: Arena, number: int, device: str) -> str:
    return next(row.reason for row in arena.store.ledger(number) if row.device == device)


# ---- 22: stragglers ---------------------------------------------------------------------------


def stragglers(arena: Arena, rng: random.Random) -> Outcome:
    """Let one device never end its training, and another one deliver when the round is closed."""
    never, late = rng.sample(DEVICES, 2)
    models = {"numpy": "tests.faults.sites:endless"}
    with changed(arena, never, models=models), changed(arena, late, models={"numpy": "tests.faults.sites:slow"}):
        accepted = arena.proxy.watch(lambda passing: _is_acceptance(passing, late))
        before, began = arena.log_sizes(), time.monotonic()
        trial = arena.open()
        await_(accepted, f"the acceptance of {late}")
        arena.proxy.hole(late)
        trial.finish(set(DEVICES) - {never, late})
        seconds = time.monotonic() - began
        if not STRAGGLING.deadline_s <= seconds <= STRAGGLING.deadline_s + MARGIN_S:
            raise NotSurvivedError(f"the round took {seconds:.2f} s; its deadline is {STRAGGLING.deadline_s:g} s")
        arena.until(lambda: "now delivering" in arena.logged(late, before), f"the end of {late}'s training")
        lifted = time.time()
        arena.proxy.lift(late)
        arena.until(lambda: _is_told(arena.logged(late, before)), f"the answer to {late}")
        arena.until(lambda: "now waiting" in arena.logged(never, before), f"the end of {never}'s training")
        answered = time.time()
    arena.settle()
    arena.open().finish()
    return Outcome(answered - lifted, arena.proxy.tally.resent_bytes, f"{never} never ends, {late} is late")


def _is_told(logged: str) -> bool:
    """Whether a device heard that its update came too late: in answer to its Offer, or before in the round's Result."""
    return "this update came too late" in logged or "did not count: sent no update" in logged


def _is_acceptance(passing: Passing, device: str) -> bool:
    return carries(Kind.DEV_SAY, Way.UP, device)(passing) and isinstance(passing.message, Accept)


# ---- 23: coming and going ---------------------------------------------------------------------


def sleeps_and_joins(arena: Arena, rng: random.Random) -> Outcome:
    """Let a device sleep through several rounds, another one be new in mid-round; both are in the next cohort."""
    govern(arena, selection_s=SELECTION_S)
    sleeper, joiner = rng.sample(DEVICES, 2)
    for device in (sleeper, joiner):
        arena.processes.pop(device).stop()
    rest = set(DEVICES) - {sleeper, joiner}
    arena.until(lambda: all(arena.state(device) == "offline" for device in (sleeper, joiner)), "both offline")
    for path in sorted((arena.folder / joiner).rglob("*"), reverse=True):  # as one that was never there
        path.rmdir() if path.is_dir() else path.unlink()
    rounds = rng.randint(2, 3)
    arena.open(rounds).finish(rest)
    begin = arena.proxy.watch(carries(Kind.DEV_UP, Way.UP))
    trial = arena.open()
    await_(begin, "an update on its way")
    arena.start_device(joiner)
    trial.finish(rest)
    woken = time.time()
    arena.start_device(sleeper)
    arena.settle()
    caught_up = time.time()
    arena.open().finish()
    note = f"{sleeper} slept through {rounds + 1} rounds, {joiner} joined in mid-round"
    return Outcome(caught_up - woken, arena.proxy.tally.resent_bytes, note)


ROWS = (
    Row(
        number=20,
        fault="trainer child killed (OOM), hung, or failing; TensorFlow missing",
        how="SIGKILL, SIGSTOP, a loader that fails, an import that fails, a limit of memory",
        holds="reported, device free for the next round",
        inject=trainer_fails,
        setup=TRAINING,
        expects=(r"training failed: ",),
        short_seeds=(0,),
    ),
    Row(
        number=22,
        fault="stragglers: one device of five never ends, one ends after the deadline",
        how="numpy trainer that sleeps",
        holds="committed with the rest at the deadline; late device told that its update did not count",
        inject=stragglers,
        setup=STRAGGLING,
        expects=(r"refused: round \d+ is closed; this update came too late", r"training took longer than the 6 s"),
        is_waiting=True,
    ),
    Row(
        number=23,
        fault="a device sleeps through several rounds, a new one joins in mid-round",
        how="stop, start",
        holds="caught up, in the next cohort",
        inject=sleeps_and_joins,
    ),
)
