"""The coordinator measured alone: many light devices, which share one process and train nothing."""

import re
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec
import psutil

from common.errors import WorkError
from coordinator.rehearsal.federation import FEDERATION, Federation, Process
from coordinator.store import RoundRow, Store

MODEL = {"name": "numpy", "options": {"tensors": 10, "parameters": 2500}}
"""10 kB, so that what a device costs outweighs what its bytes cost."""
RATIO_LIMIT = 2.0
SECONDS_LIMIT = 0.7
"""What `make bench` holds a round of LIMITED devices against."""
WRITTEN_LIMIT_KB = 40.0
"""What `make bench` holds the bytes written against, for any number of devices."""
SYNCS_LIMIT = 12.0
"""What it holds the syncs of a round against, for up to 1000 devices: 4 of its commit, the others between commits."""
IN_SERIES_LIMIT = 2
"""Syncs that a commit may wait for in turn: of the model, then of the journal that names it."""
LIMITED = 100
MANY_ROUNDS = 3
"""Rounds of more devices than LIMITED, at most: they take their time."""
READY_S = 120.0
RUN_TIMEOUT_S = 600.0


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """Rounds of so many light devices. Seconds are of one round, those of the coordinator's CPU included."""

    devices: int
    rounds: int
    seconds: float
    """Median."""
    cpu_seconds: float
    """Of the coordinator's process, user and system: mean."""
    ratio: float
    """Time by the clock of all rounds, as a multiple of the coordinator's CPU time in them."""
    delayed_s: float
    """How long the coordinator was ready to run in a round and had no core, where the kernel tells: mean."""
    coordinator_mb: float
    written_kb: float
    """What the coordinator handed to the disk, in kB (10^3 bytes) a device and round: mean."""
    written_limit_kb: float = WRITTEN_LIMIT_KB
    syncs: float
    """Of the coordinator from one commit to the next: mean."""
    syncs_limit: float = SYNCS_LIMIT
    syncs_in_series: int
    """Of the commit that waited for most of them."""
    syncs_in_series_limit: int = IN_SERIES_LIMIT
    round_seconds: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """Whether the limits hold; those of time are for LIMITED devices."""
        limits = f"{self.written_limit_kb:g} kB, {self.syncs_limit:g} syncs, {self.syncs_in_series_limit} in series"
        is_within = self.written_kb <= self.written_limit_kb and self.syncs <= self.syncs_limit
        is_within = is_within and self.syncs_in_series <= self.syncs_in_series_limit
        if self.devices == LIMITED:
            is_within = is_within and self.ratio <= RATIO_LIMIT and self.seconds < SECONDS_LIMIT
            limits = f"{RATIO_LIMIT:g} times, {SECONDS_LIMIT:g} s, {limits}"
        return f"{'within' if is_within else 'ABOVE'} the limits: {limits}"


def measure(folder: Path, devices: int, rounds: int) -> Crowd:
    """Run `rounds` rounds of `devices` light devices over Mosquitto, after one that is not counted.

    Raises WorkError where a process ends or a round is not committed.
    """
    with Federation(folder) as federation:
        federation.start_broker("mosquitto")
        rules = {"goal": devices, "minimum": devices}
        coordinator = federation.start_coordinator(
            {"model": MODEL, "round": rules, "training": {"epochs": 1, "evaluate": False}}
        )
        store = federation.open_store()
        light = ["-m", "device.light", FEDERATION, str(federation.port), str(devices)]
        federation.processes["light"] = Process("light", light, folder / "logs" / "light.log")
        federation.wait_for_devices(store, devices, READY_S)
        _run(federation, store, 1)
        watched = psutil.Process(coordinator.pid)
        cpu, written, delayed = _cpu_s(watched), watched.io_counters().write_bytes, _delayed_s(watched.pid)
        rows = _run(federation, store, rounds)
        cpu, written = _cpu_s(watched) - cpu, watched.io_counters().write_bytes - written
        turns = [rows[0].opened, *(row.closed or 0.0 for row in rows)]
        seconds = tuple(after - before for before, after in pairwise(turns))
        syncs, in_series = _syncs(coordinator.log, rows)
        return Crowd(
            devices=devices,
            rounds=rounds,
            seconds=statistics.median(seconds),
            cpu_seconds=cpu / rounds,
            ratio=sum(seconds) / cpu,
            delayed_s=(_delayed_s(watched.pid) - delayed) / rounds,
            coordinator_mb=coordinator.peak_mb(),
            written_kb=written / 1e3 / rounds / devices,
            syncs=syncs,
            syncs_in_series=in_series,
            round_seconds=seconds,
        )


def _run(federation: Federation, store: Store, rounds: int) -> list[RoundRow]:
    first = store.last_round()
    federation.wait_for_run(store, store.ask_for(rounds), RUN_TIMEOUT_S)
    rows = store.rounds(first)
    if any(row.phase != "committed" for row in rows):
        raise WorkError(f"a round of the benchmark is void: {[row.reason for row in rows]}")
    return rows


def _syncs(log: Path, rows: Sequence[RoundRow]) -> tuple[float, int]:
    """Return what the coordinator's log says: the mean of syncs a round, and the most that a commit waited for."""
    lines = re.findall(r"round=(\d+) syncs=(\d+) syncs_in_series=(\d+)", log.read_text(encoding="utf-8"))
    found = {int(number): (int(syncs), int(in_series)) for number, syncs, in_series in lines}
    told = [found[row.round] for row in rows]
    return statistics.mean(syncs for syncs, _ in told), max(in_series for _, in_series in told)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _delayed_s(pid: int) -> float:
    """Seconds that the loop's thread has waited for a core since its start; 0 where the kernel does not count them."""
    found = Path(f"/proc/{pid}/task/{pid}/schedstat")
    return int(found.read_text(encoding="ascii").split()[1]) / 1e9 if found.exists() else 0.0
