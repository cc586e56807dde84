"""Two hundred rounds with five devices: what grows of memory, threads, sockets and files, and what does not."""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil

from tests.faults.arena import Arena, NotSurvivedError, Setup

ROUNDS = 200
SETTLED = 20
"""Rounds until caches are full and the allocator has what it needs."""
SPAN = 10
"""Rounds over which a figure is taken: a median, since each moves by itself."""
MOST_GROWTH = 0.05
SOAK = Setup(parameters=100_000)


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A process: resident memory in MB (10^6 bytes), threads, sockets, files and other descriptors."""

    memory_mb: float
    threads: float
    sockets: float
    files: float


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """A process, after `SETTLED` rounds and at the end; `share` is what its memory grew by."""

    process: str
    first: Sample
    last: Sample
    share: float
    is_steady: bool


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run."""

    rounds: int
    seconds: float
    processes: tuple[Growth, ...]


def soak(folder: Path, rounds: int = ROUNDS, tell: Callable[[str], object] = print, *, is_signed: bool = False) -> Soak:
    """Run rounds, each held against the oracle, and look at every process after each of them.

    Raises NotSurvivedError where a round is not what it must be.
    """
    arena = Arena(folder / "soak", replace(SOAK, is_signed=is_signed))
    seen: dict[str, list[Sample]] = {}
    try:
        arena.begin()
        began, trial = time.monotonic(), arena.open(rounds)
        for number in range(trial.first, trial.first + rounds):
            arena.until(lambda number=number: _is_over(arena, number), f"the end of round {number}")  # type: ignore[misc]  # bound here, at once
            for name, process in _processes(arena):
                seen.setdefault(name, []).append(_look(process))
            if number % 50 == 0:
                tell(f"round {number}")
        trial.finish()
        seconds = time.monotonic() - began
    finally:
        arena.close()
    growths = tuple(_growth(name, samples) for name, samples in sorted(seen.items()))
    return Soak(rounds=rounds, seconds=seconds, processes=growths)


def _is_over(arena: Arena, number: int) -> bool:
    rows = arena.store.rounds(number - 1)
    if rows and rows[0].phase == "abandoned":
        raise NotSurvivedError(f"round {number} is void: {rows[0].reason}")
    return bool(rows) and rows[0].phase == "committed"


def _processes(arena: Arena) -> list[tuple[str, psutil.Process]]:
    found = [(name, psutil.Process(process.pid)) for name, process in arena.processes.items() if name != "broker"]
    children = [(f"{name}, trainer", child) for name, parent in found for child in parent.children()]
    return [*found, *children]


def _look(process: psutil.Process) -> Sample:
    sockets = len(process.net_connections(kind="all"))
    memory = process.memory_info().rss / 1e6
    return Sample(memory_mb=memory, threads=process.num_threads(), sockets=sockets, files=process.num_fds() - sockets)


def _growth(name: str, samples: list[Sample]) -> Growth:
    first, last = _median(samples[SETTLED : SETTLED + SPAN]), _median(samples[-SPAN:])
    share = last.memory_mb / first.memory_mb - 1.0
    counts = [(getattr(first, field), getattr(last, field)) for field in ("threads", "sockets", "files")]
    is_steady = share <= MOST_GROWTH and all(after <= before + 1 for before, after in counts)
    return Growth(process=name, first=first, last=last, share=share, is_steady=is_steady)


def _median(samples: list[Sample]) -> Sample:
    fields = Sample.__struct_fields__
    return Sample(**{field: statistics.median(getattr(sample, field) for sample in samples) for field in fields})
