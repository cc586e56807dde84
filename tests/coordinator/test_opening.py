"""A journal that is gone, locked, damaged, not ours or on a full disk: one sentence, its exit code, nothing lost."""

import os
import pwd
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from common.errors import ConfigError, DataError, DiskFullError, WorkError
from coordinator import database, schema
from coordinator import store as coordinator_store
from coordinator.cli import main
from coordinator.config import CoordinatorConfig
from coordinator.opening import make_journal, open_journal
from coordinator.round_state import Round
from coordinator.store import Store

Play = Callable[..., Round]
LOOKING = ("status", "devices", "rounds", "start", "stop", "export")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def leave_a_model(config: CoordinatorConfig) -> None:
    config.global_models.mkdir(parents=True)
    (config.global_models / f"{'0' * 64}.body").touch()


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_journal_that_is_gone_or_empty_beside_models_is_refused_with_the_cure(
    config: CoordinatorConfig, is_empty: bool
) -> None:
    leave_a_model(config)
    if is_empty:
        config.journal.touch()
    for opened in (make_journal, open_journal):
        with pytest.raises(ConfigError, match=r"is gone or empty, but .*models holds a global model: put the journal"):
            opened(config)
    assert config.journal.exists() is is_empty


def test_a_journal_that_is_empty_is_not_damaged(config: CoordinatorConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config.folder.mkdir()
    config.journal.touch()
    monkeypatch.setattr(coordinator_store, "MADE_WITHIN_S", 0.1)
    with pytest.raises(ConfigError, match="is empty: start the coordinator there first"):
        open_journal(config)
    make_journal(config).close()
    open_journal(config).close()


def test_a_first_start_that_somebody_watches_takes_place(config: CoordinatorConfig) -> None:
    """Looking takes a lock for a moment, and SQLite would not wait for its end when the journal is first made."""
    config.folder.mkdir()
    reader = sqlite3.connect(config.journal, check_same_thread=False)
    reader.execute("CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM facts").fetchall()
    looked = threading.Timer(0.3, reader.rollback)
    looked.start()
    began = time.monotonic()
    Store(config.journal, create=True).close()
    assert time.monotonic() - began > 0.2
    looked.join()


@pytest.mark.parametrize("command", ["status", "start"])
def test_a_journal_that_is_locked_for_long_is_one_sentence(
    config: CoordinatorConfig, config_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    Store(config.journal, create=True).close()
    monkeypatch.setattr(database, "BUSY_S", 0.1)
    with sqlite3.connect(config.journal) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("INSERT INTO facts VALUES ('a', 'b')")
        result = run(command, "--config", config_path)
    other.close()
    assert (result.exit_code, result.stderr.count("\n")) == (70, 1), result.stderr
    assert "another process has held the journal" in result.stderr


@pytest.mark.parametrize("at", [0, 1])
def test_pages_that_are_damaged_are_one_sentence(
    config: CoordinatorConfig, config_path: Path, play: Play, journal: Store, at: int
) -> None:
    for number in range(1, 60):
        play(number, reported={"rpi1": {"loss": 0.1}, "rpi2": {}})
    journal.close()
    content = bytearray(config.journal.read_bytes())
    content[at * 4096 + 100 : 20 * 4096] = b"\xa5" * (20 * 4096 - at * 4096 - 100)
    config.journal.write_bytes(content)
    for command in ("status", "devices", "rounds"):
        result = run(command, "--config", config_path)
        assert (result.exit_code, result.stderr.count("\n")) == (65, 1), result.output
        assert "the journal is damaged" in result.stderr


def test_a_row_that_is_damaged_is_one_sentence(config: CoordinatorConfig, config_path: Path, play: Play) -> None:
    play(1, reported={"rpi1": {}, "rpi2": {}})
    with sqlite3.connect(config.journal) as db:
        db.execute("UPDATE rounds SET state = 'no JSON'")
    result = run("rounds", "--config", config_path)
    assert (result.exit_code, "the journal is damaged" in result.stderr) == (65, True)


def test_a_table_that_is_missing_is_damage(config: CoordinatorConfig, config_path: Path, journal: Store) -> None:
    journal.close()
    with sqlite3.connect(config.journal) as db:
        db.execute("DROP TABLE devices")
    assert run("devices", "--config", config_path).exit_code == 65


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, DiskFullError),
        (sqlite3.SQLITE_IOERR_WRITE, DiskFullError),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, WorkError),
        (sqlite3.SQLITE_LOCKED, WorkError),
        (sqlite3.SQLITE_CORRUPT_INDEX, DataError),
        (sqlite3.SQLITE_NOTADB, DataError),
        (sqlite3.SQLITE_CANTOPEN_ISDIR, ConfigError),
        (sqlite3.SQLITE_READONLY_DIRECTORY, ConfigError),
        (sqlite3.SQLITE_CONSTRAINT, sqlite3.OperationalError),
    ],
)
def test_what_sqlite_says_has_a_meaning_of_ours(tmp_path: Path, code: int, kind: type[Exception]) -> None:
    error = sqlite3.OperationalError("it says so")
    error.sqlite_errorcode = code
    assert type(database.meaning(tmp_path / "journal.sqlite", error)) is kind


@contextmanager
def another_account() -> Iterator[None]:
    """Be an account that owns nothing here."""
    account = pwd.getpwnam("nobody")
    os.setegid(account.pw_gid)
    os.seteuid(account.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
@pytest.mark.parametrize("mode", [0o700, 0o750])
@pytest.mark.parametrize("command", ["status", "devices", "stop"])
def test_a_state_folder_of_another_account_is_one_sentence(
    config: CoordinatorConfig, config_path: Path, journal: Store, mode: int, command: str
) -> None:
    journal.close()
    for folder in (*config_path.parents,)[:-2]:
        folder.chmod(folder.stat().st_mode | 0o055)
    config.folder.chmod(mode)
    run("status", "--config", config_path)  # what it imports may not be the other account's to read
    with another_account():
        result = run(command, "--config", config_path)
    assert (result.exit_code, result.stderr.count("\n")) == (78, 1), result.stderr
    assert str(config.folder) in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_at_the_first_start_is_one_sentence_that_asks_to_try_again(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "small", tmp_path], check=True)
    try:
        with pytest.raises(DiskFullError, match="its disk is full"):
            Store(tmp_path / "journal.sqlite", create=True)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_indexes_are_made_once_and_belong_to_no_version(config: CoordinatorConfig) -> None:
    for _ in range(2):
        Store(config.journal, create=True).close()
    with sqlite3.connect(config.journal) as db:
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
        assert {"ledger_settled", "rounds_by_phase", "rounds_by_run"} <= names
        assert db.execute("PRAGMA user_version").fetchone() == (schema.VERSION,) == (3,)
