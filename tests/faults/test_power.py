"""The power cut takes what was not synced, and nothing else."""

import os
import shutil
from pathlib import Path

import pytest

from common.files import sync
from coordinator.database import connect
from tests.faults.power import JOURNAL, Disk

SEEDS = range(12)
CONTENT = bytes(range(256)) * 40


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "fsync", os.fsync)  # taken back afterwards
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def write(path: Path, *, is_synced: bool) -> None:
    with path.open("wb") as file:
        file.write(CONTENT)
        file.flush()
        if is_synced:
            os.fsync(file.fileno())


def test_power_cut_tears_what_was_not_synced_and_nothing_else(state: Path) -> None:
    write(state / "old", is_synced=False)
    disk = Disk(state)
    found = set()
    for seed in SEEDS:
        write(state / "synced", is_synced=True)
        (state / "synced").rename(state / "renamed")
        write(state / "torn", is_synced=False)
        sync(state)
        disk.cut(seed)
        assert (state / "old").read_bytes() == (state / "renamed").read_bytes() == CONTENT
        found.add((state / "torn").read_bytes())
    assert len(found) > len(SEEDS) // 2


def test_power_cut_takes_names_whose_folder_was_not_synced_and_no_others(state: Path) -> None:
    write(state / "old", is_synced=True)
    disk = Disk(state)
    write(state / "named", is_synced=True)
    sync(state)
    left = set()
    for seed in SEEDS:
        (state / "old").rename(state / "new")
        write(state / "nameless", is_synced=True)
        (state / "folder").mkdir()
        write(state / "folder" / "file", is_synced=True)
        disk.cut(seed)
        assert (state / "named").read_bytes() == CONTENT
        names = {path.name for path in state.iterdir()}
        assert len(names & {"old", "new"}) == 1
        left.add(frozenset(names - {"named"}))
        (state / ("new" if "new" in names else "old")).rename(state / "old")
        (state / "nameless").unlink(missing_ok=True)
        shutil.rmtree(state / "folder", ignore_errors=True)
    assert len(left) > 4


def test_power_cut_leaves_the_journal_at_a_moment_after_its_last_durable_commit(state: Path, tmp_path: Path) -> None:
    db, disk = connect(state / JOURNAL, create=True), Disk(state)
    db.execute("CREATE TABLE told (number INTEGER)")
    for number in range(30):
        with db.transaction(is_durable=False):
            db.execute("INSERT INTO told VALUES (?)", (number,))
        if number == 9:
            disk.note_commit()
    left = set()
    for seed in SEEDS:
        machine = tmp_path / f"machine-{seed}"
        shutil.copytree(state, machine)
        later = Disk(machine)
        later._commit = disk._commit  # noqa: SLF001 - the same process goes on in the copy
        later.cut(seed)
        (machine / f"{JOURNAL}-shm").unlink()
        left.add(len(connect(machine / JOURNAL, create=False).execute("SELECT * FROM told").fetchall()))
    assert min(left) >= 10
    assert len(left) > 3


def test_power_cut_leaves_what_earlier_processes_wrote_to_the_journal(state: Path) -> None:
    earlier = connect(state / JOURNAL, create=True)
    earlier.execute("CREATE TABLE told (number INTEGER)")
    for number in range(10):
        earlier.execute("INSERT INTO told VALUES (?)", (number,))
    Disk(state).cut(SEEDS[0])
    (state / f"{JOURNAL}-shm").unlink()
    assert len(connect(state / JOURNAL, create=False).execute("SELECT * FROM told").fetchall()) == 10
