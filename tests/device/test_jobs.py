"""The training process as the daemon sees it: a real child with a tiny learner."""

import errno
import os
import queue
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from common.blobs import BlobStore
from common.config import DataConfig
from common.plan import ModelChoice, Training
from common.python import child_command
from common.weights import TensorSpec, pack
from device import runner
from device.config import TrainerConfig
from device.jobs import Done, Failure, Job, JobEvent, Loaded, Progress, TrainingProcess
from tests.rounds import plan_of

pytestmark = pytest.mark.system

SPEC = (TensorSpec("w", (4,), "float32"), TensorSpec("steps", (2,), "int64"))
BASE = [np.arange(4, dtype=np.float32), np.array([7, 8])]
LEARNER = """
import os, threading
import numpy as np
from common.errors import WorkError
from common.learning.seam import Examples, Site, Trained
from common.weights import TensorSpec

class Tiny:
    image_size = 0
    def __init__(self, options):
        self.how = options["how"]
    def spec(self):
        name = "other" if self.how == "other model" else "w"
        return (TensorSpec(name, (4,), "float32"), TensorSpec("steps", (2,), "int64"))
    def train(self, weights, site, plan, on_epoch):
        on_epoch(1, {"pid": os.getpid(), "bad": float("nan"), "huge": 1e35})
        trained, examples, metrics = [weights[0] + 1, weights[1] + 1], len(site.train), {"loss": 0.25}
        if self.how == "fail":
            raise WorkError("the learning rate is silly")
        if self.how == "bug":
            raise KeyError("a bug in the user's code")
        if self.how == "exit":
            os._exit(3)
        if self.how == "hog":
            self.hog = np.ones(150 * 2**20, np.uint8)
        if self.how in ("hang", "hog"):
            threading.Event().wait(60)
        if self.how == "nan":
            trained[0][2] = np.nan
        if self.how == "no examples":
            examples = 0
        if self.how == "many metrics":
            metrics = {str(i): 1.0 for i in range(65)}
        return Trained(trained, examples, metrics)

def make(options):
    return Tiny(options)

def load(data, image_size):
    skipped = [f"{n}.png: gone" for n in range(data.options.get("skipped", 0))]
    images = np.zeros((10, 0, 0, 3), np.uint8)
    return Site(Examples(images, np.zeros(10, np.int64)), Examples(images[:0], np.zeros(0, np.int64)), skipped)
"""


@dataclass
class Bench:
    """A training process with its events, and jobs for it."""

    folder: Path
    events: queue.SimpleQueue[JobEvent]
    process: TrainingProcess
    loaded: list[Loaded] = field(default_factory=list)

    def job(self, how: str, number: int = 1, deadline_s: float = 100.0, skipped: int = 0) -> Job:
        base = BlobStore(self.folder / "models")
        draft = self.folder / "draft"
        draft.write_bytes(pack(SPEC, BASE))
        ref = base.add(draft, SPEC, 4096)
        model, training = ModelChoice(name="tiny", options={"how": how}), Training(epochs=3)
        plan = plan_of(number, ref, model=model, training=training, deadline_s=deadline_s)
        return Job(
            round=number,
            device="pi",
            plan=plan,
            base=str(base.body(ref.id)),
            head=str(base.head_path(ref.id)),
            out=str(self.folder / "update.tmp"),
            personal=str(self.folder / "personal"),
            data=DataConfig(loader="tiny_learner:load", options={"skipped": skipped}),
            models={"tiny": "tiny_learner:make"},
            python_path=str(self.folder),
        )

    def next(self, now: float = 0.0) -> JobEvent:
        """The next event; time stands still at `now` while we wait."""
        for _ in range(400):
            self.process.tick(now)
            try:
                event = self.events.get(timeout=0.05)
            except queue.Empty:
                continue
            if isinstance(event, Loaded):
                self.loaded.append(event)
                continue
            if isinstance(event, Done | Failure):
                assert self.process.settle(event, now)
            return event
        pytest.fail("the training process says nothing")

    def pid(self) -> int:
        """The child's process id, which the learner tells as a figure of its first epoch."""
        event = self.next()
        assert isinstance(event, Progress)
        return int(event.metrics["pid"])

    def reason(self, now: float = 0.0) -> str:
        event = self.next(now)
        assert isinstance(event, Failure)
        assert not self.process.is_busy
        return event.reason


Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    (tmp_path / "tiny_learner.py").write_text(LEARNER)
    for name in ("common", "device"):  # where users keep files of these names, too
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not fedpi')")
    monkeypatch.chdir(tmp_path)
    made: list[Bench] = []

    def bench(**config: Any) -> Bench:
        events: queue.SimpleQueue[JobEvent] = queue.SimpleQueue()
        made.append(Bench(tmp_path, events, TrainingProcess(TrainerConfig(**config), events.put)))
        return made[-1]

    yield bench
    for each in made:
        each.process.stop()


def test_a_job_is_done_and_the_next_one_finds_the_process_warm(make: Make) -> None:
    bench = make()
    bench.process.start(bench.job("work"), 0.0)
    assert bench.process.is_busy
    progress = bench.next()
    assert isinstance(progress, Progress)
    assert (progress.round, progress.epoch, progress.epochs) == (1, 1, 3)
    assert progress.metrics.keys() == {"pid"}, "what no message can carry is left out"
    assert bench.next() == Done(1, 10, {"loss": 0.25, "skipped_files": 0.0})
    assert not bench.process.is_busy
    update = (bench.folder / "update.tmp").read_bytes()
    assert np.frombuffer(update[:16], np.float32).tolist() == [1.0] * 4
    assert np.frombuffer(update[16:], np.int64).tolist() == [0, 0], "whole numbers are not averaged"
    bench.process.start(bench.job("work", 2), 0.0)
    assert bench.pid() == progress.metrics["pid"]
    assert bench.next() == Done(2, 10, {"loss": 0.25, "skipped_files": 0.0})


def test_what_the_data_lacks_is_told_before_the_training_and_with_its_figures(make: Make) -> None:
    bench = make()
    for number in (1, 2):  # the second round finds the data in memory
        bench.process.start(bench.job("work", number, skipped=30), 0.0)
        bench.pid()
        assert bench.next() == Done(number, 10, {"loss": 0.25, "skipped_files": 30.0})
        loaded = bench.loaded[-1]
        assert (loaded.round, loaded.usable, loaded.skipped) == (number, 10, 30)
        assert loaded.first[0] == "0.png: gone"
        assert len(loaded.first) == 10


FAILURES = {
    "fail": "the learning rate is silly",
    "bug": 'KeyError: "a bug in the user\'s code"',
    "nan": "not finite",
    "no examples": "no example",
    "many metrics": "64",
    "other model": "'other'",
}


def test_a_job_that_fails_says_why_and_the_process_stays(make: Make) -> None:
    bench = make()
    bench.process.start(bench.job("work"), 0.0)
    pid = bench.pid()
    bench.next()
    for number, (how, reason) in enumerate(FAILURES.items(), 2):
        bench.process.start(bench.job(how, number), 0.0)
        event = bench.next()
        while isinstance(event, Progress):
            event = bench.next()
        assert isinstance(event, Failure)
        assert event.round == number
        assert reason in event.reason
    bench.process.start(bench.job("work", 99), 0.0)
    assert bench.pid() == pid


def test_a_process_that_the_kernel_kills_is_one_failed_job(make: Make) -> None:
    bench = make()
    bench.process.start(bench.job("hang"), 0.0)
    pid = bench.pid()
    os.kill(pid, signal.SIGKILL)
    assert "killed, as the kernel does when memory runs out" in bench.reason()
    bench.process.start(bench.job("work", 2), 0.0)
    assert bench.pid() != pid
    assert isinstance(bench.next(), Done)


def test_a_process_that_ends_by_itself_is_one_failed_job(make: Make) -> None:
    bench = make()
    bench.process.start(bench.job("exit"), 0.0)
    bench.pid()
    assert "exit code 3" in bench.reason()


def test_a_container_that_forbids_niceness_and_oom_score_trains_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    served: list[int] = []
    ours, theirs = socket.socketpair()
    monkeypatch.setattr("os.nice", forbid)
    monkeypatch.setattr(Path, "write_text", forbid)
    monkeypatch.setattr(runner, "_serve", lambda connection: served.append(connection.fileno()))
    monkeypatch.setattr("sys.argv", ["runner", str(theirs.fileno()), "5"])
    with ours, theirs:
        runner.main()
        assert served == [theirs.detach()]


def test_a_process_that_died_between_two_jobs_is_replaced(make: Make) -> None:
    bench = make()
    bench.process.start(bench.job("work"), 0.0)
    pid = bench.pid()
    bench.next()
    os.kill(pid, signal.SIGKILL)
    bench.process.start(bench.job("work", 2), 0.0)
    event = bench.next()
    if isinstance(event, Failure):  # it died while it was being handed the job
        bench.process.start(bench.job("work", 3), 0.0)
        event = bench.next()
    assert isinstance(event, Progress)
    assert event.metrics["pid"] != pid


def test_a_job_past_its_deadline_is_ended(make: Make) -> None:
    bench = make()
    bench.process.start(bench.job("hang", deadline_s=50.0), 1000.0)
    pid = bench.pid()
    bench.process.tick(1049.9)
    assert bench.process.is_busy
    assert "50 s" in bench.reason(1050.0)
    assert not psutil.pid_exists(pid)


def test_a_job_that_takes_too_much_memory_is_ended(make: Make) -> None:
    bench = make(memory_mb=150)
    bench.process.start(bench.job("hog"), 0.0)
    bench.pid()
    assert "trainer.memory_mb allows 150" in bench.reason()


def test_a_job_is_cancelled_at_once_and_nothing_is_heard_of_it(make: Make) -> None:
    bench = make()
    bench.process.start(bench.job("hang"), 0.0)
    pid = bench.pid()
    bench.process.stop()
    assert not psutil.pid_exists(pid)
    assert not bench.process.is_busy
    bench.process.tick(0.0)
    assert bench.events.empty()
    bench.process.stop()


def test_a_new_job_ends_the_one_that_runs(make: Make) -> None:
    bench = make()
    bench.process.start(bench.job("hang"), 0.0)
    pid = bench.pid()
    bench.process.start(bench.job("work", 2), 0.0)
    assert not psutil.pid_exists(pid)
    assert bench.pid() != pid
    assert bench.next() == Done(2, 10, {"loss": 0.25, "skipped_files": 0.0})
    assert not bench.process.settle(Done(1, 10, {}), 0.0)


def test_an_idle_process_gives_its_memory_back(make: Make) -> None:
    bench = make(keep_warm_s=10.0)
    bench.process.start(bench.job("work"), 100.0)
    pid = bench.pid()
    bench.next(100.0)
    bench.process.tick(109.0)
    assert psutil.pid_exists(pid)
    bench.process.tick(110.0)
    assert not psutil.pid_exists(pid)
    bench.process.tick(111.0)


def test_a_process_that_cannot_be_started_is_a_failed_job(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    bench.process.start(bench.job("work"), 0.0)
    assert "cannot start: No such file" in bench.reason()


def test_files_are_closed_again(make: Make) -> None:
    bench = make()
    before = psutil.Process().num_fds()
    for number in (1, 2):
        bench.process.start(bench.job("hang", number), 0.0)
        os.kill(bench.pid(), signal.SIGKILL)
        bench.reason()
    assert psutil.Process().num_fds() == before


@pytest.mark.parametrize("is_heard", [True, False])
def test_the_process_ends_when_the_daemon_is_gone(make: Make, is_heard: bool) -> None:
    """Even in the middle of a training, and without a word, also where the daemon has left its last one unread."""
    bench = make()
    ours, theirs = socket.socketpair()
    command = child_command("device.runner", str(theirs.fileno()), "0")
    child = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
    theirs.close()
    ours.sendall(msgspec.json.encode(bench.job("hang")) + b"\n")
    with ours:
        said = b""
        while b"Progress" not in said:
            read = ours.recv(10_000, 0 if is_heard else socket.MSG_PEEK)
            said = said + read if is_heard else read
    assert child.communicate(timeout=10.0)[1] == ""
    assert child.returncode == 0
