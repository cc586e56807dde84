"""A federation on this machine: a broker, a coordinator and devices, each a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common.errors import WorkError
from common.python import child_command
from common.yaml_text import dump
from coordinator.store import Run, Store

FEDERATION = "rehearsal"
READY_S = 30.0
STOP_S = 15.0
NO_SETTINGS: Mapping[str, str] = {}


class Process:
    """A started command whose output goes to a log file."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=_environment()
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def check(self) -> None:
        """Raise WorkError with the end of its log if it ended by itself."""
        if (code := self._popen.poll()) is not None:
            raise WorkError(f"{self.name} ended with exit code {code}: {last_line(self.log)} (log: {self.log})")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """Wait until it ends by itself; returns its exit code, raises WorkError where it does not."""
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise WorkError(f"{self.name} runs on (log: {self.log})") from error

    def stop(self) -> None:
        """End it in order, or by force when it does not end."""
        if self._popen.poll() is None:
            self._popen.terminate()
        try:
            self._popen.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a power cut would."""
        self._popen.kill()
        self._popen.wait()

    def peak_mb(self) -> float:
        """Largest resident memory so far, in MB (10^6 bytes)."""
        for line in Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
        return 0.0


class Federation:
    """Starts and stops the processes; everything they write lies below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.port = free_port()
        self.processes: dict[str, Process] = {}
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        (self.folder / "config").mkdir(exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self.processes.values()):
            process.stop()

    @property
    def journal(self) -> Path:
        """The coordinator's journal."""
        return self.folder / "coordinator" / "journal.sqlite"

    @property
    def broker(self) -> dict[str, Any]:
        """The `broker` section of every configuration."""
        return {"host": "127.0.0.1", "port": self.port}

    def start_broker(self, kind: str, settings: Mapping[str, str] = NO_SETTINGS) -> Process:
        """Start the embedded broker or Mosquitto, and wait until it takes connections.

        `settings` take the place of Mosquitto's own lines of those names; a restart keeps the file as it is.
        """
        options = {
            "kind": kind,
            "port": self.port,
            "port_311": free_port(),
            "folder": str(self.folder / "broker"),
            "anonymous": kind == "mosquitto",
        }
        if kind == "embedded":
            del options["anonymous"]
        else:
            del options["port_311"]
        config = self._write("broker", options)
        conf = self.folder / "broker" / "mosquitto.conf"
        if kind == "mosquitto" and not conf.exists():
            run(["broker", "init", "--config", str(config)], self.folder / "logs" / "broker-init.log")
            lines = conf.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.partition(" ")[0] not in settings]
            conf.write_text("\n".join([*kept, *map(" ".join, settings.items()), ""]), encoding="utf-8")
        broker = self._start("broker", ["broker", "run", "--config", str(config)])
        deadline = time.monotonic() + READY_S
        while not _listens(self.port):
            broker.check()
            if time.monotonic() > deadline:
                raise WorkError(f"the broker does not answer on port {self.port} (log: {broker.log})")
            time.sleep(0.05)
        return broker

    def start_coordinator(self, options: Mapping[str, Any] | None = None) -> Process:
        """Start the coordinator; with no options, again with those of the last start."""
        if options is not None:
            state = str(self.folder / "coordinator")
            self._write("coordinator", {"federation": FEDERATION, "state": state, "broker": self.broker, **options})
        return self._start("coordinator", ["coordinator", "serve", "--config", str(self.config("coordinator"))])

    def start_device(self, device: str, options: Mapping[str, Any] | None = None) -> Process:
        """Start a device; with no options, again with those of its last start."""
        if options is not None:
            common = {
                "federation": FEDERATION,
                "device": device,
                "state": str(self.folder / device),
                "broker": self.broker,
            }
            self._write(device, {**common, **options})
        return self._start(device, ["device", "run", "--config", str(self.config(device))])

    def config(self, name: str) -> Path:
        """Path of the configuration file of a process."""
        return self.folder / "config" / f"{name}.yaml"

    def check(self) -> None:
        """Raise WorkError if any process ended by itself."""
        for process in self.processes.values():
            process.check()

    @property
    def environment(self) -> dict[str, str]:
        """The environment for further commands of fedpi."""
        return _environment()

    def body(self, blob: str) -> Path:
        """Path of the bytes of one of the coordinator's models."""
        return self.folder / "coordinator" / "models" / f"{blob}.body"

    def has_initial_model(self) -> bool:
        """Whether the coordinator has its first global model; raises WorkError if a process ended."""
        self.check()
        if not self.journal.exists():
            return False
        store = Store(self.journal)
        try:
            return store.global_model() is not None
        finally:
            store.close()

    def open_store(self, timeout_s: float = 300.0) -> Store:
        """Wait until the coordinator has its journal and its initial model, and open it to look."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.has_initial_model():
                return Store(self.journal)
            time.sleep(0.1)
        raise WorkError(f"the coordinator made no initial model within {timeout_s:g} s")

    def wait_for_devices(self, store: Store, count: int, timeout_s: float = READY_S) -> None:
        """Wait until `count` devices are online."""
        deadline = time.monotonic() + timeout_s
        while sum(row.state == "online" for row in store.devices()) < count:
            self.check()
            if time.monotonic() > deadline:
                raise WorkError(f"fewer than {count} devices came online within {timeout_s:g} s")
            time.sleep(0.05)

    def wait_for_run(self, store: Store, number: int, timeout_s: float) -> Run:
        """Wait until a run is over; returns it."""
        deadline = time.monotonic() + timeout_s
        while True:
            run_ = store.run(number)
            if run_ is not None and run_.state in {"done", "stopped"}:
                return run_
            self.check()
            if time.monotonic() > deadline:
                raise WorkError(f"run {number} was not over within {timeout_s:g} s")
            time.sleep(0.05)

    def _start(self, name: str, command: list[str]) -> Process:
        process = Process(name, ["-m", *command], self.folder / "logs" / f"{name}.log")
        self.processes[name] = process
        return process

    def _write(self, name: str, options: Mapping[str, Any]) -> Path:
        path = self.config(name)
        path.write_text(dump(dict(options)), encoding="utf-8")
        return path


def run(command: list[str], log: Path) -> str:
    """Run one of fedpi's commands to its end; returns what it printed. Raises WorkError with its own sentence."""
    done = subprocess.run(
        child_command(*command),
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=_environment(),
    )
    log.write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise WorkError(f"fedpi-{' '.join(command[:2])} failed: {said[-1] if said else done.returncode} (log: {log})")
    return done.stdout


def free_port() -> int:
    """Return a TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def last_line(log: Path) -> str:
    """Return the last line that a process wrote."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it wrote nothing"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _environment() -> dict[str, str]:
    """Let the processes find fedpi where this one does, installed or not."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
