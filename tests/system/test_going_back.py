"""An upgrade is undone after a round was committed: journal and models go back as one, and the round is accounted for.

install.sh does it by systemd/coordinator_state.py, while the coordinator is stopped; tests/machines upgrades for real.
"""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.system.conftest import LiveFederation

pytestmark = pytest.mark.system

SCRIPT = Path(__file__).parents[2] / "systemd/coordinator_state.py"


def run(what: str, state: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-I", SCRIPT, what, state], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFederation]:
    """Two rounds are committed, the state is kept for an upgrade, a third round is committed; the coordinator stops."""
    with LiveFederation(tmp_path_factory.mktemp("live"), {"rpi1": 7, "rpi2": 9}) as federation:
        federation.begin("mosquitto")
        federation.run(2)
        stop(federation)
        done = run("keep", federation.folder)
        assert (done.returncode, done.stderr) == (0, "")
        go_on(federation)
        federation.run()
        stop(federation)
        yield federation


@pytest.fixture
def state(live: LiveFederation, tmp_path: Path) -> Path:
    """A copy of what such an upgrade leaves."""
    for name in ("coordinator", "before-upgrade"):
        shutil.copytree(live.folder / name, tmp_path / name)
    return tmp_path


def stop(live: LiveFederation) -> None:
    live.processes.pop("coordinator").stop()
    live.store.close()


def go_on(live: LiveFederation) -> None:
    live.start_coordinator()
    live.store = live.open_store(60.0)


def models(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "models").glob("*.body")}


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_round_stays_where_the_earlier_version_reads_the_journal(state: Path) -> None:
    before = files(state)
    done = run("back", state)
    assert done.returncode == 0
    assert done.stdout.startswith("Rounds that were committed since the upgrade: 3. They stay")
    assert files(state) == before


def test_a_global_model_that_is_gone_brings_the_kept_state_back(state: Path) -> None:
    kept = models(state / "before-upgrade")
    shutil.rmtree(state / "coordinator/models")
    done = run("back", state)
    assert done.stdout.startswith("Rounds that were committed since the upgrade: 3. They are undone")
    assert "is missing, the global model that the journal names" in done.stdout
    assert models(state / "coordinator") == kept


def test_nothing_earlier_is_deleted_where_what_is_there_is_damaged(state: Path) -> None:
    kept = files(state / "before-upgrade")
    model = next(iter((state / "coordinator/models").glob("*.head")))
    model.unlink()
    done = run("keep", state)
    assert done.returncode == 1
    assert done.stderr == f"install.sh: {model} is missing, the global model that the journal names\n"
    assert files(state / "before-upgrade") == kept
    assert sorted(path.name for path in state.glob("before-upgrade*")) == ["before-upgrade"]


def test_a_power_cut_while_one_copy_takes_the_place_of_the_other_loses_neither(state: Path) -> None:
    kept = files(state / "before-upgrade")
    (state / "before-upgrade").rename(state / "before-upgrade.old")
    (state / "coordinator/journal.sqlite").write_bytes(b"SQLite format 3\0 and then nothing")
    assert run("keep", state).returncode == 1
    assert files(state / "before-upgrade") == kept


def test_a_damaged_copy_is_never_put_back(state: Path) -> None:
    (state / "before-upgrade/journal.sqlite").write_bytes(b"SQLite format 3\0 and then nothing")
    before = files(state)
    done = run("back", state)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert files(state) == before


def test_where_no_round_was_committed_since_that_is_said_too(state: Path) -> None:
    shutil.rmtree(state / "coordinator")
    shutil.copytree(state / "before-upgrade", state / "coordinator")
    said = run("back", state).stdout
    assert said.startswith("Rounds that were committed since the upgrade: none. The earlier version reads")


def test_a_round_is_undone_and_kept_where_the_earlier_version_cannot_read_it(live: LiveFederation) -> None:
    with closing(sqlite3.connect(live.journal)) as db:
        db.execute("PRAGMA user_version = 999")
    before, after = models(live.folder / "before-upgrade"), models(live.folder / "coordinator")
    assert before - after, "the third round let an earlier model go: without it the kept journal is worth nothing"
    done = run("back", live.folder)
    assert done.returncode == 0
    assert done.stdout.startswith("Rounds that were committed since the upgrade: 3. They are undone")
    (undone,) = live.folder.glob("undone-*")
    assert str(undone) in done.stdout
    assert (models(undone), models(live.folder / "coordinator")) == (after, before)
    go_on(live)
    base = live.model()
    (again,) = live.run()
    assert (again.round, again.phase, again.reported) == (3, "committed", ("rpi1", "rpi2"))
    assert live.model() == live.expect(base, 3)


def test_a_coordinator_that_never_ran_has_nothing_to_keep(tmp_path: Path) -> None:
    (tmp_path / "coordinator").mkdir()
    for what in ("keep", "back"):
        done = run(what, tmp_path)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["coordinator"]
