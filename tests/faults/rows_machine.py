"""Rows 17, 18 and 19: what a machine does to its process. The clock jumps, the disk is full, nothing moves."""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from common.topics import Kind
from coordinator.store import Store
from tests.faults import scenarios, victims
from tests.faults.arena import DEVICES, Arena, NotSurvivedError, Setup
from tests.faults.launcher import FILLER, Fault
from tests.faults.passing import COORDINATOR, Match, Way, carries
from tests.faults.row import Outcome, Row
from tests.faults.rows_line import await_

DAY_S = 86_400.0
FROZEN_S = 10.0
MARGIN_S = 5.0
"""A busy machine is late by seconds; a deadline on the wrong clock passes at once, or a day later."""
CLOCK = Setup(deadline_s=6.0, grace_s=1.0)
DISK = Setup(device=(("health", {"min_disk_mb": None}),))
FREEZING = Setup(keepalive_s=30)
"""As fedpi's own default: nobody takes a party for gone that is silent for 10 s."""
DISK_BYTES = 96 * 2**20
"""Enough for all that a party keeps of a model of 3.2 MB."""
CHUNKS = DISK.model_bytes // DISK.chunk_bytes


# ---- 17: the clock ----------------------------------------------------------------------------


def clock_jumps(arena: Arena, rng: random.Random) -> Outcome:
    """Let all wall clocks jump by a day, or from 1970 to now, while a round waits for its deadline or its updates."""
    parties = (COORDINATOR, *DEVICES)
    begin, end = ((0.0, DAY_S), (0.0, -DAY_S), (60.0 - time.time(), 0.0))[arena.seed % 3]
    is_late = arena.seed // 3 % 2 == 0
    if not victims.is_launched(arena, COORDINATOR) or begin:
        for party in parties:
            victims.launch(arena, party)
            victims.set_clock(arena, begin, (party,))
        arena.settle()
    victims.set_clock(arena, begin, parties)
    scenario = scenarios.one_late(arena) if is_late else scenarios.plain(arena)
    moment = arena.proxy.watch(carries(Kind.DEV_CMD, Way.UP), 3 if is_late else rng.randrange(1, 20))
    began = time.monotonic()
    with scenario as (trial, must_count):
        await_(moment, "a command of the coordinator")
        victims.set_clock(arena, end, parties)
        trial.finish(must_count)
    seconds = time.monotonic() - began
    least, most = (CLOCK.deadline_s, CLOCK.deadline_s + MARGIN_S) if is_late else (0.0, CLOCK.deadline_s)
    if not least <= seconds <= most:
        raise NotSurvivedError(f"the round took {seconds:.2f} s, not between {least:g} and {most:g} s")
    victims.set_clock(arena, 0.0, parties)
    note = f"from {begin:.0f} to {end:.0f} s, {'held to the deadline' if is_late else 'all in'}: {seconds:.2f} s"
    return Outcome(0.0, arena.proxy.tally.resent_bytes, note)


# ---- 18: the disk -----------------------------------------------------------------------------

_SAVES = (
    "begin",
    "CheckedIn selecting>reporting",
    "Offered reporting>reporting",
    "Delivered reporting>reporting",
    "Delivered reporting>aggregating",
    "Aggregated aggregating>committed",
)
WRITES = (
    *((COORDINATOR, f"{edge} before", 1) for edge in _SAVES),
    *((COORDINATOR, f"journal.{name} before", 1) for name in ("go_on", "end_run", "see_devices")),
    *((COORDINATOR, f"updates.{name} before", 3) for name in ("prepare", "write", "finish")),
    *((COORDINATOR, f"models.{name} before", 1) for name in ("add_blocks", "publish", "sync")),
    *(("", f"models.{name} before", most) for name, most in (("prepare", 1), ("write", CHUNKS), ("finish", 1))),
    *(("", f"{name} before", 1) for name in ("train", "updates.add", "updates.publish", "keep_offer", "secure")),
    *(("", f"{name} before", 1) for name in ("say CheckIn", "say Offer", "drop_update")),
)
"""Every write of the coordinator and of a device ("", drawn by the seed), and up to which time it is reached."""


def disk_full(arena: Arena, rng: random.Random) -> Outcome:
    """Fill the disk of a party just before it writes; free it once the party has said so, or the round is over."""
    party, place, most = WRITES[arena.seed % len(WRITES)]
    party = party or rng.choice(DEVICES)
    slack = rng.choice((0, 0, 4096, 2**16))
    before = arena.log_sizes()
    with small_disk(arena, party):
        victims.arm(arena, party, Fault(place, rng.randint(1, most), "fill", slack=slack))
        trial = arena.open(rounds=2)
        victims.await_strike(arena, party, place)
        time.sleep(rng.uniform(0.3, 1.5))
        (arena.folder / party / FILLER).unlink()
        freed = time.time()
        closed = trial.finish(set(DEVICES) - {party})
        arena.settle()
        arena.open().finish()  # with everybody
    waited = party == COORDINATOR and "waits for room" in arena.logged(party, before)
    reasons = [row.reason for row in arena.store.ledger() if row.round >= trial.first and row.device == party]
    said = "waited" if waited else ", ".join(filter(None, reasons)) or "nothing was lost"
    return Outcome(max(closed - freed, 0.0), arena.proxy.tally.resent_bytes, f"{party}: {place}: {said}"[:200])


@contextmanager
def small_disk(arena: Arena, party: str) -> Iterator[None]:
    """Run a party under the launcher with its state on a file system of its own; as before afterwards."""
    state, aside = arena.folder / party, arena.folder / f"{party}.aside"
    _stop(arena, party)
    state.rename(aside)
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "fedpi", state], check=True)
    try:
        shutil.copytree(aside, state, dirs_exist_ok=True)
        if party == COORDINATOR:
            Store(state / arena.journal.name).close()  # whose log is empty then, so that every save takes room
        _start(arena, party, launched=True)
        yield
    finally:
        _stop(arena, party)
        shutil.rmtree(aside)
        shutil.copytree(state, aside)
        subprocess.run(["umount", state], check=True)
        state.rmdir()
        aside.rename(state)
        _start(arena, party, launched=False)


def _stop(arena: Arena, party: str) -> None:
    if party == COORDINATOR:
        arena.store.close()
    if party in arena.processes:
        arena.processes.pop(party).kill()


def _start(arena: Arena, party: str, *, launched: bool) -> None:
    if launched:
        victims.launch(arena, party)
    elif party == COORDINATOR:
        arena.start_coordinator()
    else:
        arena.start_device(party)
    if party == COORDINATOR:
        arena.store = arena.open_store()
    arena.settle()


# ---- 19: frozen -------------------------------------------------------------------------------


def frozen(arena: Arena, rng: random.Random) -> Outcome:
    """Stop the coordinator or a device for 10 s, and let it go on."""
    party = COORDINATOR if arena.seed % 2 else rng.choice(DEVICES)
    moment = arena.proxy.watch(rng.choice(_moments(party)), rng.randrange(1, 4))
    before = arena.log_sizes()
    trial = arena.open()
    await_(moment, f"a moment of {party}")
    arena.processes[party].send(signal.SIGSTOP)
    sent = arena.proxy.tally.resent_bytes
    time.sleep(FROZEN_S)
    arena.processes[party].send(signal.SIGCONT)
    thawed = time.time()
    closed = trial.finish()
    if any(" down: " in arena.logged(name, before) for name in (COORDINATOR, *DEVICES)):
        raise NotSurvivedError("a connection broke")
    resent = arena.proxy.tally.resent_bytes - sent
    window = arena.setup.credit_chunks * arena.setup.chunk_bytes
    if resent > len(DEVICES) * window:
        raise NotSurvivedError(f"{resent} bytes were sent again; the credit is {window} for everybody")
    return Outcome(max(closed - thawed, 0.0), arena.proxy.tally.resent_bytes, party)


def _moments(party: str) -> tuple[Match, ...]:
    if party == COORDINATOR:
        return carries(Kind.DEV_SAY, Way.DOWN), carries(Kind.DEV_CMD, Way.UP), carries(Kind.DEV_UP, Way.DOWN)
    return carries(Kind.DEV_CMD, Way.DOWN, party), carries(Kind.DEV_UP, Way.UP, party)


ROWS = (
    Row(
        number=17,
        fault="clock jumps of a day, both ways; no clock at start",
        how="injected clock",
        holds="deadlines hold (monotonic)",
        inject=clock_jumps,
        setup=CLOCK,
        short_seeds=(0,),
    ),
    Row(
        number=18,
        fault="disk full on device and on coordinator, at every write",
        how="small tmpfs, filled just before the write",
        holds="stopped cleanly, old model kept, resumes when there is room",
        inject=disk_full,
        setup=DISK,
        expects=(
            r"waits for room: ",
            r"cannot keep blob",
            r"training failed: .*No space left",
            r"is not durable yet",
            r"cannot fetch blob",
        ),
        injections=2 * len(WRITES),
        needs_root=True,  # mounts the disk
        short_seeds=(12,),
    ),
    Row(
        number=19,
        fault="coordinator or device frozen for 10 s (SIGSTOP)",
        how="signal",
        holds="no drop; credit stops the senders",
        inject=frozen,
        setup=FREEZING,
        is_waiting=True,
    ),
)
