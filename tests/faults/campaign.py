"""Runs injections: federations one after the other in a process, several processes beside each other."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from common.errors import FedpiError
from tests.faults.arena import Arena, SkippedError
from tests.faults.passing import Tally
from tests.faults.report import Injection, Undisturbed
from tests.faults.row import Row
from tests.faults.scenarios import govern
from tests.faults.table import ROWS, obstacle

MATRIX = (1, 4, 10)
"""Rows that every broker is put through, beside the undisturbed round."""
SHORT_MATRIX = (4,)
MATRIX_INJECTIONS = 8
FULL = 20
"""Injections of a row that make the full table."""
LANES = 3
"""Processes beside each other. A round keeps two cores busy for a part of its time only."""


@dataclass(frozen=True)
class Unit:
    """Rows of one setup, which share federations: numbers of rows, and the seeds of each."""

    seeds: tuple[tuple[int, tuple[int, ...]], ...]
    folder: Path
    broker: str = ""
    """In place of the one that the setup names."""
    is_signed: bool = False

    @property
    def injections(self) -> list[tuple[Row, int]]:
        """Rows and seeds, one after the other."""
        rows = {number: self._adapted(ROWS[number]) for number, _ in self.seeds}
        return [(rows[number], seed) for number, seeds in self.seeds for seed in seeds]

    def _adapted(self, row: Row) -> Row:
        setup = replace(row.setup, broker=self.broker or row.setup.broker, is_signed=self.is_signed)
        return replace(row, setup=setup)


@dataclass
class Found:
    """What a unit showed."""

    injections: list[Injection] = field(default_factory=list)
    undisturbed: list[Undisturbed] = field(default_factory=list)


def run(units: Sequence[Unit], lanes: int = LANES) -> Iterator[Found]:
    """Run units in processes of their own; yields what each showed as it ends."""
    pool = ProcessPoolExecutor(lanes, multiprocessing.get_context("spawn"))
    try:
        for future in as_completed([pool.submit(run_unit, unit) for unit in units]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def interrupt() -> None:
    """Tell the processes of `run` to end what they started, as Ctrl+C does."""
    for process in multiprocessing.active_children():
        if process.pid is not None:
            os.kill(process.pid, signal.SIGINT)


def units(rows: Sequence[Row], seeds: Sequence[int] | None, folder: Path) -> list[Unit]:
    """Cut the work: one unit a row for the full table (`seeds`), one a setup for the short one (None).

    Those that mostly wait come first.
    """
    if seeds is not None:
        ordered = sorted(rows, key=lambda row: not row.is_waiting)
        return [
            Unit(((row.number, tuple(range(seeds[0], seeds[0] + _count(row, len(seeds))))),), folder) for row in ordered
        ]
    groups: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: not row.is_waiting):
        alike = (g for g in groups if (g[0].setup, g[0].is_waiting) == (row.setup, row.is_waiting))
        group = next(alike, None)
        if group is None:
            groups.append([row])
        else:
            group.append(row)
    return [Unit(tuple((row.number, row.short_seeds) for row in group), folder) for group in groups]


def _count(row: Row, asked: int) -> int:
    """Return how many injections of a row to make; who asks for fewer than the full table has gets those."""
    return row.injections if row.injections and asked >= FULL else asked


def matrix(kinds: Sequence[str], rows: Sequence[Row], seeds: Sequence[int] | None, folder: Path) -> list[Unit]:
    """Cut the work of the brokers beside Mosquitto: one unit a broker, for the full table or the short one (None)."""
    met = [row for row in rows if row.number in (SHORT_MATRIX if seeds is None else MATRIX)]
    chosen = tuple((row.number, (0,) if seeds is None else _spread(row, seeds)) for row in met)
    return [Unit(chosen, folder / kind, kind) for kind in kinds]


def _spread(row: Row, seeds: Sequence[int]) -> tuple[int, ...]:
    """Choose seeds that lie far apart among those of a row: neighbours strike at the same place, before and after."""
    count = _count(row, len(seeds))
    return tuple(seeds[0] + count * nth // MATRIX_INJECTIONS for nth in range(min(MATRIX_INJECTIONS, count)))


def run_unit(unit: Unit) -> Found:
    """Run every injection of a unit; after one that was not survived comes a new federation."""
    found, arena = Found(), None
    try:
        for row, seed in unit.injections:
            began = time.time()
            if reason := obstacle(row):
                found.injections.append(_skipped(row, seed, reason))
                continue
            if arena is None:
                arena = Arena(unit.folder / f"row-{row.number}-seed-{seed}", row.setup)
            try:
                if not arena.processes:
                    arena.begin()
                    found.undisturbed.append(undisturbed(arena))
                    govern(arena, deadline_s=row.setup.deadline_s, grace_s=row.setup.grace_s)
                found.injections.append(inject(arena, row, seed))
            except SkippedError as error:  # nothing has been touched yet
                found.injections.append(_skipped(row, seed, str(error)))
            except FedpiError as error:  # what does not hold, and a process that ended by itself
                found.injections.append(_failed(arena, row, seed, str(error), time.time() - began))
                arena.close()
                arena = None
    finally:
        if arena is not None:
            arena.close()
    return found


def undisturbed(arena: Arena) -> Undisturbed:
    """Run one round without a fault. Raises NotSurvivedError where it is not the oracle's, byte for byte."""
    trial = arena.open()
    began = time.time()
    closed = trial.finish()
    arena.settle()
    arena.check_logs({})
    base, model, expected = trial.ids[0]
    return Undisturbed(
        folder=arena.folder.name,
        broker=arena.setup.broker,
        base=base,
        model=model,
        oracle=expected,
        seconds=closed - began,
        resent_bytes=arena.proxy.tally.resent_bytes,
    )


def inject(arena: Arena, row: Row, seed: int) -> Injection:
    """Inject once and check what holds after every fault. Raises NotSurvivedError, WorkError if a process ended."""
    rng = random.Random(f"{row.number}/{seed}")
    arena.seed, arena.proxy.tally = seed, Tally()
    logs, began = arena.log_sizes(), time.time()
    outcome = row.inject(arena, rng)
    arena.proxy.clear()
    arena.settle()
    arena.check_logs(logs, row.expects)
    return Injection(
        row=row.number,
        broker=row.setup.broker,
        seed=seed,
        survived=True,
        recovery_s=outcome.recovery_s,
        resent_share=None if outcome.resent_bytes is None else outcome.resent_bytes / arena.setup.model_bytes,
        note=outcome.note,
        seconds=time.time() - began,
        replay=_replay(row, seed),
        is_signed=row.setup.is_signed,
    )


def _failed(arena: Arena, row: Row, seed: int, reason: str, seconds: float) -> Injection:
    return msgspec.structs.replace(_none(row, seed), note=f"{reason} (logs: {arena.folder.name}/logs)", seconds=seconds)


def _skipped(row: Row, seed: int, reason: str) -> Injection:
    return msgspec.structs.replace(_none(row, seed), skipped=reason)


def _none(row: Row, seed: int) -> Injection:
    """Return what stands for an injection that was not survived, or not made."""
    return Injection(
        row=row.number,
        broker=row.setup.broker,
        seed=seed,
        survived=False,
        recovery_s=0.0,
        resent_share=None,
        note="",
        seconds=0.0,
        replay=_replay(row, seed),
        is_signed=row.setup.is_signed,
    )


def _replay(row: Row, seed: int) -> str:
    broker = "" if row.setup.broker == "mosquitto" else f" BROKERS={row.setup.broker}"
    signed = " SIGNED=1" if row.setup.is_signed else ""
    return f"make faults ROWS={row.number} SEED={seed} INJECTIONS=1{broker}{signed}"
