"""The training process as the daemon sees it: jobs go in, progress and one outcome come out.

TensorFlow lives in that child. It stays warm between rounds, can be ended at any moment, and if the
kernel kills it for its memory, that is one failed job.
"""

import contextlib
import logging
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from io import BufferedReader

import msgspec
import psutil

from common.config import DataConfig, Folders
from common.messages import Metrics
from common.plan import RoundPlan
from common.python import child_command
from device.config import TrainerConfig

log = logging.getLogger(__name__)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One local training: from the packed weights in `base`, described by the head in `head`, to `out`.

    What stays on the device is in the folder `personal`.
    """

    round: int
    device: str
    plan: RoundPlan
    base: str
    head: str
    out: str
    personal: str
    data: DataConfig
    models: dict[str, str]
    python_path: Folders = ()


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The data is read; `first` are sentences on the first files that are left out."""

    round: int
    usable: int
    skipped: int
    first: tuple[str, ...]


class Progress(msgspec.Struct, frozen=True, tag=True):
    """An epoch is over."""

    round: int
    epoch: int
    epochs: int
    metrics: Metrics


class Done(msgspec.Struct, frozen=True, tag=True):
    """The update is written."""

    round: int
    num_examples: int
    metrics: Metrics


class Failure(msgspec.Struct, frozen=True, tag=True):
    """There will be no update."""

    round: int
    reason: str


JobEvent = Loaded | Progress | Done | Failure


class TrainingProcess:
    """Keeps at most one child, with at most one job. `deliver` is called from a thread of its own."""

    def __init__(self, config: TrainerConfig, deliver: Callable[[JobEvent], None]) -> None:
        self._config = config
        self._deliver = deliver
        self._child: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._job: Job | None = None
        self._due_at = float("inf")
        self._idle_since = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether a job runs."""
        return self._job is not None

    def start(self, job: Job, now: float) -> None:
        """Run `job`, ending any other."""
        if self._job is not None:
            self.stop()
        self._job = job
        self._due_at = now + job.plan.deadline_s
        if self._reader is None or not self._reader.is_alive():
            try:
                self._spawn()
            except OSError as error:
                self._fail(f"the training process cannot start: {error.strerror}")
                return
        assert self._socket is not None  # noqa: S101 - _spawn made it
        with contextlib.suppress(OSError):  # tick() reports a child that is gone
            self._socket.sendall(msgspec.json.encode(job) + b"\n")

    def settle(self, event: Done | Failure, now: float) -> bool:
        """Take note of an outcome; returns whether it is the running job's."""
        if self._job is None or self._job.round != event.round:
            return False
        self._job = None
        self._idle_since = now
        return True

    def tick(self, now: float) -> None:
        """Hold the limits: time, memory, and how long an idle child may stay. Call it often."""
        if self._child is None or self._reader is None:
            return
        if self._job is None:
            if now - self._idle_since >= self._config.keep_warm_s:
                self.stop()
        elif not self._reader.is_alive():  # what the child had to say before it ended is delivered
            self._fail(f"the training process ended by itself ({cause_of(self._end_child())})")
        elif now >= self._due_at:
            self._fail(f"training took longer than the {self._job.plan.deadline_s:g} s of its deadline")
        elif (limit := self._config.memory_mb) is not None and (used := self._memory_mb()) > limit:
            self._fail(f"training used {used:.0f} MB of memory; trainer.memory_mb allows {limit}")

    def stop(self) -> None:
        """End the child, whatever it does."""
        self._job = None
        self._end_child()

    def _fail(self, reason: str) -> None:
        assert self._job is not None  # noqa: S101 - callers have looked
        self._end_child()
        self._deliver(Failure(self._job.round, reason))

    def _end_child(self) -> int:
        """End the child if it still runs; returns its return code, 0 where there is none."""
        child, self._child, self._reader = self._child, None, None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if child is None:
            return 0
        child.kill()
        return child.wait()

    def _spawn(self) -> None:
        self._end_child()  # one that has ended by itself still has its socket
        ours, theirs = socket.socketpair()
        command = child_command("device.runner", str(theirs.fileno()), str(self._config.niceness))
        self._socket = ours
        with theirs:
            self._child = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        log.info("trainer started pid=%d", self._child.pid)
        self._reader = threading.Thread(target=self._read, args=(ours.makefile("rb"),), name="trainer", daemon=True)
        self._reader.start()

    def _read(self, lines: BufferedReader) -> None:
        """In a thread of its own, until the child ends: hand on what it says."""
        decoder = msgspec.json.Decoder(JobEvent)
        with contextlib.suppress(OSError), lines:
            for line in lines:
                self._deliver(decoder.decode(line))

    def _memory_mb(self) -> float:
        assert self._child is not None  # noqa: S101 - callers have looked
        try:
            return float(psutil.Process(self._child.pid).memory_info().rss) / 2**20
        except (OSError, psutil.Error, RuntimeError, ValueError, LookupError):  # as when /proc is not all there
            return 0.0


def cause_of(code: int) -> str:
    """Say how a process ended whose return code is `code`."""
    if code == -signal.SIGKILL:
        return "killed, as the kernel does when memory runs out"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
