"""The syncs that a coordinator's log tells of its rounds, beside those that the kernel sees of its process."""

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from coordinator.rehearsal import crowd
from coordinator.rehearsal.federation import Federation, Process

pytestmark = pytest.mark.system

DEVICES, ROUNDS = 5, 4
STRACE = ["strace", "-D", "-f", "-y", "-e", "trace=fsync,fdatasync,sync_file_range,syncfs,sync"]
"""`-D`: the traced process is the one that was started, so it is ended in order."""
SYNC = re.compile(r"^\d+ +\w*sync\w*\(\d*<?(.*?)>", re.MULTILINE)


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the coordinator of a federation run under strace, which writes to this file."""
    path = tmp_path / "trace"
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: apt-get install strace")
    if subprocess.run([*STRACE, "-o", str(path), "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine lets nobody trace")
    start = Federation._start  # noqa: SLF001 - a test starts it otherwise

    def started(self: Federation, name: str, command: list[str]) -> Process:
        if name != "coordinator":
            return start(self, name, command)
        under = ["-c", "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])", *STRACE, "-o", str(path)]
        log = self.folder / "logs" / f"{name}.log"
        self.processes[name] = Process(name, [*under, sys.executable, "-P", "-m", *command], log)
        return self.processes[name]

    monkeypatch.setattr(Federation, "_start", started)
    return path


def test_a_round_makes_the_syncs_that_the_log_tells_and_the_journal_waits_for_the_model(
    tmp_path: Path, trace: Path
) -> None:
    crowd.measure(tmp_path / "run", DEVICES, ROUNDS)
    log = (tmp_path / "run" / "logs" / "coordinator.log").read_text(encoding="utf-8")
    told = [int(syncs) for syncs in re.findall(r"round=\d+ syncs=(\d+) syncs_in_series=2\n", log)]
    assert len(told) == 1 + ROUNDS
    synced = [path for path in SYNC.findall(trace.read_text(encoding="utf-8")) if path]
    after_model = [
        place for place, path in enumerate(synced) if path.endswith("-wal") and "/models" in synced[place - 1]
    ]
    commits = after_model[-1 - ROUNDS :]  # the initial model's may come before them
    assert [after - before for before, after in pairwise(commits)] == told[1:]
    for place in commits:
        names = [re.split(r"[./]", path)[-1] for path in synced[place - 3 : place]]
        assert sorted(names) == ["body", "head", "models"]
