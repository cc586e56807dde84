"""The benchmark: seconds, memory and bytes of a round, beside a bare loop of paho in the same run."""

import json
import statistics
import subprocess
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from common.errors import WorkError
from common.learning.seam import build
from common.plan import ModelChoice
from common.python import child_command
from common.weights import nbytes
from coordinator.rehearsal import crowd
from coordinator.rehearsal.crowd import Crowd
from coordinator.rehearsal.federation import Federation

MODEL = {"name": "numpy", "options": {}}
RUN_TIMEOUT_S = 600.0
Tell = Callable[[str], None]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One size of federation. Seconds are medians over the rounds after the first; MB are 10^6 bytes, peaks."""

    devices: int
    rounds: int
    seconds: float
    bare_seconds: float
    ratio: float
    coordinator_mb: float
    bare_coordinator_mb: float
    device_mb: float
    idle_device_mb: float
    published_share: float
    """Bytes that the coordinator published in a round, all topics, as a multiple of the model."""
    round_seconds: tuple[float, ...]
    bare_round_seconds: tuple[float, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `runs/bench/report.json` holds."""

    model_bytes: int
    tensors: int
    results: tuple[Measured, ...]
    crowds: tuple[Crowd, ...]


class Sizes(NamedTuple):
    """How many devices: federations of processes of their own beside the bare loop, and those of light devices."""

    devices: Sequence[int]
    light: Sequence[int]


def bench(folder: Path, sizes: Sizes, rounds: int, tell: Tell) -> Report:
    """Measure federations of `sizes`, `rounds` rounds each; writes `report.json` below `folder`."""
    spec = build(ModelChoice(name="numpy"), {}).spec()
    size = nbytes(spec)
    results = []
    for devices in sizes.devices:
        tell(f"{devices} devices: the bare loop")
        bare = _measure_bare(folder / f"bare-{devices}", devices, size, rounds + 1)
        tell(f"{devices} devices: fedpi")
        results.append(_measure(folder / f"fedpi-{devices}", devices, size, rounds + 1, bare))
    crowds = []
    for devices in sizes.light:
        tell(f"{devices} light devices")
        most = rounds if devices <= crowd.LIMITED else min(rounds, crowd.MANY_ROUNDS)
        crowds.append(crowd.measure(folder / f"light-{devices}", devices, most))
    report = Report(model_bytes=size, tensors=len(spec), results=tuple(results), crowds=tuple(crowds))
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    return report


def _measure_bare(folder: Path, devices: int, size: int, rounds: int) -> dict[str, object]:
    bare = child_command("coordinator.rehearsal.bare")
    with Federation(folder) as federation:
        federation.start_broker("mosquitto")
        port = str(federation.port)
        workers = [subprocess.Popen([*bare, "device", port, str(i), str(size)]) for i in range(devices)]
        try:
            command = [*bare, "coordinator", port, str(devices), str(size), str(rounds)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise WorkError(f"the bare loop with {devices} devices failed: {error}") from error
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    result: dict[str, object] = json.loads(done.stdout)
    return result


def _measure(folder: Path, devices: int, size: int, rounds: int, bare: dict[str, object]) -> Measured:
    names = [f"rpi{i + 1}" for i in range(devices)]
    with Federation(folder) as federation:
        federation.start_broker("mosquitto")
        rules = {"goal": devices, "minimum": devices}
        federation.start_coordinator({"model": MODEL, "round": rules, "training": {"epochs": 1, "evaluate": False}})
        store = federation.open_store()
        data = {"loader": "common.learning.numpy_learner:no_images"}
        for name in names:
            federation.start_device(name, {"data": data, "serving": {"process": "off"}})
        federation.wait_for_devices(store, devices)
        idle = max(federation.processes[name].peak_mb() for name in names)
        federation.wait_for_run(store, store.ask_for(rounds), RUN_TIMEOUT_S)
        done = store.rounds()
        if any(row.phase != "committed" for row in done):
            raise WorkError(f"a round of the benchmark is void: {[row.reason for row in done]}")
        # From close to close: everything that happens between two rounds counts as well.
        closed = [row.closed or 0.0 for row in done]
        seconds = tuple(after - before for before, after in pairwise(closed))
        bare_seconds = tuple(float(s) for s in bare["seconds"][1:])  # type: ignore[index]
        published = statistics.median(row.bytes_down for row in done[1:])
        return Measured(
            devices=devices,
            rounds=len(seconds),
            seconds=statistics.median(seconds),
            bare_seconds=statistics.median(bare_seconds),
            ratio=statistics.median(seconds) / statistics.median(bare_seconds),
            coordinator_mb=federation.processes["coordinator"].peak_mb(),
            bare_coordinator_mb=float(bare["peak_mb"]),  # type: ignore[arg-type]
            device_mb=max(federation.processes[name].peak_mb() for name in names),
            idle_device_mb=idle,
            published_share=published / size,
            round_seconds=seconds,
            bare_round_seconds=bare_seconds,
        )
