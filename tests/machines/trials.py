"""What befalls a fleet in service, one fault after the other: each must mend itself, and the next round must commit."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from common.journal import ALERTS
from tests.machines.federation import DEVICE, Federation, offline
from tests.machines.hosts import MEDIA, Host
from tests.machines.roots import MachineError

NEXT = "/srv/next"
BROKEN = "raise RuntimeError('broken')"
NEWER_JOURNAL = "self._store._db.execute('PRAGMA user_version = 999'); self._store._db.commit(); self._recover()"
SCARCE_BYTES = 200 * 2**20
"""Memory beside what runs at rest: too little for TensorFlow."""
UNIT_S = 150.0
"""A watchdog's minute, the time to abort, the pause before the restart, and room."""


@dataclass(frozen=True)
class Fault:
    """Harm to one unit on one machine."""

    name: str
    host: Host
    unit: str
    do: Callable[[], object]


@dataclass(frozen=True)
class Outcome:
    """What became of it: seconds until the unit served again, and until a round was committed."""

    fault: str
    unit: str
    recovered_s: float
    round_s: float
    note: str = ""


def run_all(federation: Federation, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Try every fault; raises MachineError at the first that does not mend itself."""
    done = []
    trials = [partial(mend, federation, fault) for fault in in_a_round(federation)]
    others = (
        serve_alone,
        mend_configuration,
        stop_main_loops,
        starve_trainer,
        failed_upgrade_of_device,
        failed_upgrade_of_coordinator,
    )
    trials += [partial(trial, federation) for trial in others]
    for trial in trials:
        outcome = trial()
        tell(f"{outcome.fault}: {outcome.unit} back after {outcome.recovered_s:.1f} s, round {outcome.round_s:.1f} s")
        done.append(asdict(outcome))
    return done


def in_a_round(federation: Federation) -> list[Fault]:
    """Faults that strike while devices train; that very round must be committed."""
    hub, first, last = federation.hub, federation.devices[0], federation.devices[-1]

    def cut_power() -> None:
        last.cut_power()
        last.boot()

    return [
        Fault("SIGKILL of a device", first, "fedpi-device", lambda: kill(first, "fedpi-device")),
        Fault("SIGKILL of serving", first, "fedpi-inference", lambda: kill(first, "fedpi-inference")),
        Fault("SIGKILL of the coordinator", hub, "fedpi-coordinator", lambda: kill(hub, "fedpi-coordinator")),
        Fault("SIGKILL of the broker", hub, "fedpi-broker", lambda: kill(hub, "fedpi-broker")),
        Fault("restart of the broker", hub, "fedpi-broker", lambda: hub.run("systemctl", "restart", "fedpi-broker")),
        Fault("power cut of a device", last, "fedpi-device", cut_power),
        Fault("reboot of broker and coordinator", hub, "fedpi-coordinator", hub.reboot),
    ]


def mend(federation: Federation, fault: Fault) -> Outcome:
    """Do harm while devices train; the unit must come back and the round be committed."""
    before = begin_training(federation)
    old = fault.host.invocation(fault.unit)
    began = time.monotonic()
    fault.do()
    recovered = wait_for_unit(federation, fault.host, fault.unit, old, began)
    return Outcome(fault.name, fault.unit, recovered, wait_for_commit(federation, before, began))


def stop_main_loops(federation: Federation) -> Outcome:
    """SIGSTOP: the processes live, their loops do not turn. Only the watchdogs can tell."""
    places = [(federation.hub, "fedpi-coordinator"), (federation.devices[0], "fedpi-device")]
    old = [host.invocation(unit) for host, unit in places]
    before, began = federation.last_round(), time.monotonic()
    for host, unit in places:
        host.run("kill", "-STOP", str(host.main_pid(unit)))
    recovered = max(
        wait_for_unit(federation, host, unit, start, began) for (host, unit), start in zip(places, old, strict=True)
    )
    federation.start()
    round_s = wait_for_commit(federation, before, began)
    return Outcome("SIGSTOP of device and coordinator", "both by their watchdogs", recovered, round_s)


def starve_trainer(federation: Federation) -> Outcome:
    """Train where memory is short: the kernel must take the trainer, and nothing else."""
    host, units = federation.devices[0], ("fedpi-device", "fedpi-inference")
    host.run("systemctl", "restart", "fedpi-device")  # without a trainer that has its memory already
    federation.wait_for("a device at rest", lambda: not trainer(host))
    starts = [host.invocation(unit) for unit in units]
    is_limited = host.limit_memory(host.used_memory() + SCARCE_BYTES)
    before, began = begin_training(federation), time.monotonic()
    if not is_limited:
        federation.wait_for("a trainer", lambda: bool(trainer(host)))
        host.run("kill", "-KILL", trainer(host))
    failed = [f"MESSAGE_ID={ALERTS['training-failed']}", f"ROUND={before + 1}"]
    recovered = federation.wait_for("the failed training in the journal", lambda: bool(host.entries(*failed)))
    host.limit_memory(None)
    if starts != [host.invocation(unit) for unit in units]:
        raise MachineError("more than the trainer was killed")
    federation.wait_for_phase("abandoned", after=before)  # of two devices, one failed
    federation.start()
    note = "killed by the kernel" if is_limited else "killed by hand: no memory group of the first version to limit"
    return Outcome(
        "out of memory", "trainer", round(recovered, 1), wait_for_commit(federation, before + 1, began), note
    )


def serve_alone(federation: Federation) -> Outcome:
    """Stop the device: its machine must answer images all the same."""
    host, began = federation.devices[0], time.monotonic()
    host.run("systemctl", "stop", "fedpi-device")
    answer = federation.ask(host)
    if not answer["ok"]:
        raise MachineError(f"serving without the device: {answer['text']}")
    answered = round(time.monotonic() - began, 1)
    host.run("systemctl", "start", "fedpi-device")
    before = federation.last_round()
    federation.start()
    return Outcome(
        "device stopped", "fedpi-inference", answered, wait_for_commit(federation, before, began), answer["text"]
    )


def mend_configuration(federation: Federation) -> Outcome:
    """Break a device's configuration: it stays down, and comes back by itself when the file is mended."""
    host, before, began = federation.devices[0], federation.last_round(), time.monotonic()
    host.run("sed", "--in-place", "s/^data:/dtaa:/", DEVICE)
    host.run("systemctl", "restart", "--no-block", "fedpi-device")
    federation.wait_for("a refused configuration", lambda: host.show("fedpi-device", "ExecMainStatus") == "78")
    time.sleep(8)  # longer than the pause before a restart
    if host.show("fedpi-device", "ActiveState") != "failed":
        raise MachineError("a wrong configuration was started again")
    old = host.invocation("fedpi-device")
    mended = time.monotonic()
    host.run("sed", "--in-place", "s/^dtaa:/data:/", DEVICE)
    recovered = wait_for_unit(federation, host, "fedpi-device", old, mended)
    federation.start()
    return Outcome("wrong configuration", "fedpi-device", recovered, wait_for_commit(federation, before, began))


def failed_upgrade_of_device(federation: Federation) -> Outcome:
    """Upgrade a device to a version whose loop breaks."""
    host = federation.devices[0]
    change_next(host, "device/daemon.py", {"self._voice.start()": BROKEN})
    return fail_upgrade(federation, host, "device", "inference")


def failed_upgrade_of_coordinator(federation: Federation) -> Outcome:
    """Upgrade the hub to a version that brings the journal to a form of its own, and then breaks."""
    hub = federation.hub
    change_next(hub, "coordinator/service.py", {"self._voice.start()": BROKEN, "self._recover()": NEWER_JOURNAL})
    return fail_upgrade(federation, hub, "broker", "coordinator")


def fail_upgrade(federation: Federation, host: Host, *roles: str) -> Outcome:
    """Install the broken version: install.sh must go back to what ran, and say so."""
    slot, before = host.run("readlink", "/opt/fedpi/current").stdout, federation.last_round()
    began = time.monotonic()
    done = host.run(*offline(*roles, "--no-learning", clone=NEXT), check=False)
    if done.returncode != 70 or host.run("readlink", "/opt/fedpi/current").stdout != slot:
        raise MachineError(f"a broken upgrade ended with {done.returncode}: {done.stdout}{done.stderr}")
    recovered = round(time.monotonic() - began, 1)
    federation.start()
    note = done.stderr.strip().splitlines()[-1]
    name = f"broken upgrade of {host.name}"
    return Outcome(name, " and ".join(roles), recovered, wait_for_commit(federation, before, began), note)


# ---- parts of trials --------------------------------------------------------------------------


def begin_training(federation: Federation) -> int:
    """Start a round and wait until devices train in it; returns the number of the one before."""
    before = federation.last_round()
    federation.start()
    federation.wait_for_phase("reporting", after=before)
    return before


def kill(host: Host, unit: str) -> None:
    """SIGKILL to the unit's main process."""
    host.run("kill", "-KILL", str(host.main_pid(unit)))


def wait_for_unit(federation: Federation, host: Host, unit: str, old: str, began: float) -> float:
    """Wait until another start of it than `old` serves; returns the seconds since `began`."""

    def is_back() -> bool:
        return host.show(unit, "ActiveState") == "active" and host.invocation(unit) not in {"", old}

    federation.wait_for(f"{unit} on {host.name} back", is_back, UNIT_S)
    return round(time.monotonic() - began, 1)


def wait_for_commit(federation: Federation, before: int, began: float) -> float:
    """Wait until the round after number `before` is committed; returns the seconds since `began`."""
    federation.wait_for_phase("committed", "abandoned", after=before)
    ended = federation.rounds()[-1]
    if ended["phase"] != "committed":
        raise MachineError(f"the round is void: {json.dumps(ended)}")
    return round(time.monotonic() - began, 1)


def trainer(host: Host) -> str:
    """Return the process number of the machine's trainer; empty where there is none."""
    return host.run("pgrep", "--full", "device.runner", check=False).stdout.split("\n")[0]


def change_next(host: Host, file: str, changes: dict[str, str]) -> None:
    """Put a version of our own onto the machine's disk in which some code stands for other code."""
    copy = host.root / NEXT.lstrip("/")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(next(here for here, there in host.binds.items() if there == MEDIA), copy)
    text = (copy / file).read_text(encoding="utf-8")
    for good, bad in changes.items():
        if good not in text:
            raise MachineError(f"{file} has no {good!r} to break; correct this trial")
        text = text.replace(good, bad, 1)
    (copy / file).write_text(text, encoding="utf-8")
