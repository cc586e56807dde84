"""What the commit of a round waits for: its model and the names of that, together, then the journal; nothing else."""

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from common.blobs import BlobStore
from common.messages import Ref
from common.syncs import TALLY
from coordinator.aggregator import Aggregator
from coordinator.method import Method
from coordinator.round import step
from coordinator.round_state import Phase
from coordinator.store import Store
from coordinator.strategies.fedadam import FedAdam
from coordinator.upkeep import COMMITS_A_LOG
from tests.coordinator.test_outcome import base, closing, contributions, models

__all__ = ["base", "models"]  # pytest finds the fixtures here
MODEL = ["body", "head", "models"]


class Recorder:
    """Names every sync: files and folders by the end of their name, the journal's by what SQLite is told to do."""

    def __init__(self, journal: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.journal, self.folder = journal, folder
        self.syncs: list[str] = []
        self._is_full, self._is_inside = True, False
        self._fsync = os.fsync
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._sync)
        journal._db.set_trace_callback(self._trace)  # noqa: SLF001 - a test looks inside

    def _sync(self, descriptor: int) -> None:
        self.syncs.append(Path(f"/proc/self/fd/{descriptor}").readlink().name.rpartition(".")[2])
        self._fsync(descriptor)

    def _trace(self, sql: str) -> None:
        verb = sql.split(maxsplit=1)[0]
        if "synchronous =" in sql:
            self._is_full = "FULL" in sql
        elif "checkpoint" in sql:
            self.syncs.append("checkpoint")
        elif verb in {"INSERT", "UPDATE", "DELETE"} and not self._is_inside:
            self.syncs.append("journal")
        elif verb == "COMMIT":
            self.syncs += ["journal"] * self._is_full
        self._is_inside = verb == "BEGIN" or (self._is_inside and verb != "COMMIT")


@pytest.fixture
def recorder(journal: Store, base: Ref, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    del base  # it is there before
    return Recorder(journal, tmp_path, monkeypatch)


@pytest.fixture
def aggregator(tmp_path: Path, models: BlobStore) -> Aggregator:
    return Aggregator(models, tmp_path / "moments", print)


@pytest.mark.parametrize(
    ("method", "blobs"), [(Method(), MODEL), (Method(strategy=FedAdam()), [*MODEL, "body", "head", "moments"])]
)
def test_a_commit_syncs_its_model_at_once_and_then_the_journal(
    recorder: Recorder, aggregator: Aggregator, base: Ref, method: Method, blobs: list[str]
) -> None:
    last = closing(1, base, {}, method)
    recorder.journal.save(msgspec.structs.replace(last, phase=Phase.REPORTING), 1)
    before = TALLY.made
    recorder.journal.save(last, 1)
    assert recorder.syncs == []
    committed, _ = step(last, aggregator.aggregate(last, contributions(recorder.folder)), 1.0)
    assert sorted(recorder.syncs) == sorted(blobs)
    recorder.journal.save(committed, 1)
    assert sorted(recorder.syncs[:-1]) == sorted(blobs)
    assert recorder.syncs[-1] == "journal"
    assert (TALLY.made.calls - before.calls, TALLY.made.waits - before.waits) == (len(recorder.syncs), 2)


def test_the_log_says_what_a_committed_round_waited_for(
    recorder: Recorder, aggregator: Aggregator, base: Ref, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for number in (1, 2):
        last = closing(number, base, {})
        recorder.journal.save(msgspec.structs.replace(last, phase=Phase.REPORTING), 1)
        recorder.journal.set_fact("between", "rounds")
        recorder.journal.save(last, 1)
        recorder.journal.save(step(last, aggregator.aggregate(last, contributions(recorder.folder)), 1.0)[0], 1)
    assert "round=2 syncs=5 syncs_in_series=2" in caplog.text


def test_no_round_that_is_being_committed_waits_for_the_log_to_be_copied(
    journal: Store,
    base: Ref,
    recorder: Recorder,
) -> None:
    last = closing(1, base, {})
    journal.save(last, 1)
    for number in range(COMMITS_A_LOG):
        journal.note_fact("number", str(number))
    journal.tidy_log()
    assert recorder.syncs == []
    journal.save(msgspec.structs.replace(last, phase=Phase.COMMITTED, result=base), 1)
    journal.tidy_log()
    assert recorder.syncs == ["journal", "checkpoint"]


def test_a_model_that_is_here_already_is_not_written_over(
    tmp_path: Path,
    models: BlobStore,
    base: Ref,
) -> None:
    files = models.files(base.id)
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in files[:2]]
    blocks = [models.body(base.id).read_bytes()]
    assert models.add_blocks(blocks, models.head(base).spec, base.chunk_bytes) == base
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in files[:2]] == before
    models.body(base.id).write_bytes(b"torn")
    assert models.add_blocks(blocks, models.head(base).spec, base.chunk_bytes) == base
    models.verify(base)
    assert sorted(path.suffix for path in (tmp_path / "models").iterdir()) == [".body", ".head"]


# ---- what is counted, beside what the kernel sees -------------------------------------------

SCRIPT = """
import os, sys
from pathlib import Path
from common.errors import DataError
from common.files import sync, write_atomic
from common.syncs import TALLY
from coordinator.store import DeviceRow, Store

folder = Path(sys.argv[1])
(folder / "mark").write_bytes(b"")
mark = os.open(folder / "mark", os.O_RDONLY)
store = Store(folder / "journal.sqlite", create=True)
run = store.ask_for(1)
os.fsync(mark)
before = TALLY.made.calls
for number in range(3):
    store.go_on(run)
    for value in range(400):
        store.note_fact(f"{number} {value}", "x" * 12_000)
    store.set_fact("after more pages than SQLite lets a log have", str(number))
    store.see_devices([DeviceRow(device="a", state="online", doing="", release="", seen=1.0)])
    store.tidy_log()
    write_atomic(folder / "file", b"x")
    sync(folder / "file", folder)
    try:
        with store._db.transaction(is_durable=True):
            store.set_fact("never", "kept")
            raise DataError("as if a statement had failed")
    except DataError:
        pass
store.renew_log()
store.end_run(run, "done")
made = TALLY.made.calls - before
os.fsync(mark)
print(made)
"""


@pytest.mark.process
def test_every_sync_that_the_kernel_sees_is_counted_and_none_that_it_does_not(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: apt-get install strace")
    trace = tmp_path / "trace"
    tracing = [strace, "-f", "-y", "-e", "trace=fsync,fdatasync,sync_file_range,syncfs,sync", "-o", str(trace)]
    done = subprocess.run(
        [*tracing, sys.executable, "-c", SCRIPT, str(tmp_path)], check=False, capture_output=True, text=True
    )
    if done.returncode and "ptrace" in done.stderr:
        pytest.skip(f"this machine lets nobody trace: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    calls = re.findall(r"^\d+ +\w*sync\w*\(\d*(.*?)>", trace.read_text(), re.MULTILINE)
    first, last = [place for place, path in enumerate(calls) if path.endswith("/mark")]
    seen = calls[first + 1 : last]
    assert len(seen) == int(done.stdout)
    assert sum(path.endswith("-wal") for path in seen) > 3
    assert (
        sum(path.endswith("journal.sqlite") for path in seen) == 2
    )  # the log is copied once it is due, and at the end
