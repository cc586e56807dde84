"""The connection to the journal's database: how it is opened, what is durable, what its errors mean."""

import errno
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import ConfigError, DataError, DiskFullError, FedpiError, WorkError
from common.files import DISK_STATES, hand_over, make_folders, state_error
from common.syncs import TALLY

FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
"""What SQLite says of a full disk: of the journal itself, and of the index beside it."""
BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR})
"""SQLITE_ERROR too: our statements are right, so a table or a column is missing."""
DENIED = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH})
CACHE_KIB = 256
"""Pages kept in memory: those of the open round. SQLite's own 2 MB would fill with rounds that are over."""
BUSY_S = 30.0
"""How long to wait for a lock that another process holds."""


class Database(sqlite3.Connection):
    """A connection whose statements raise errors of fedpi's own: see `meaning`. `path` is the journal's.

    SQLite itself syncs the write-ahead log once at a commit that is durable. Twice more it would sync where a commit
    copies the log into the database, and once more in the one after that, so no commit does: `copy_log` does.
    """

    path = Path()
    commits = 0
    """How many changed anything since the log was copied."""
    _is_durable = True
    _changes = 0
    """Rows changed before the last commit."""

    def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:
        """Run one statement that changes something; outside of `transaction` it is durable."""
        try:
            cursor = super().execute(sql, values)
        except sqlite3.DatabaseError as error:
            raise meaning(self.path, error) from error
        if not self.in_transaction and self.total_changes != self._changes:
            self._changes = self.total_changes
            self.commits += 1
            if self._is_durable:
                TALLY.add(calls=1, waits=1)
        return cursor

    def rows(self, sql: str, values: Any = ()) -> Iterator[sqlite3.Row]:
        """Yield what a statement finds, one row in memory at a time."""
        cursor = self.execute(sql, values)
        while True:
            try:
                row = cursor.fetchone()
            except sqlite3.DatabaseError as error:
                raise meaning(self.path, error) from error
            if row is None:
                return
            yield row

    def row(self, sql: str, values: Any = ()) -> sqlite3.Row | None:
        """Return the first row that a statement finds."""
        found = self.rows(sql, values)
        try:
            return next(found, None)
        finally:
            found.close()  # type: ignore[attr-defined]  # a generator: ends the statement

    @contextmanager
    def transaction(self, *, is_durable: bool) -> Iterator[None]:
        """Take all statements inside together, or none where one raises; `is_durable` waits for the disk."""
        self.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
        self._is_durable = is_durable
        try:
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.execute("COMMIT")
            finally:
                if self.in_transaction:
                    self.rollback()
                    self._changes = self.total_changes
        finally:
            self._is_durable = True
            self.execute("PRAGMA synchronous = FULL")

    def copy_log(self) -> None:
        """Copy the write-ahead log into the database, as far as no reader needs it; the next write begins it anew."""
        found = self.row("PRAGMA wal_checkpoint(PASSIVE)")
        frames, copied = (found["log"], found["checkpointed"]) if found else (0, 0)
        self.commits = 0
        syncs = (copied > 0) + (copied == frames > 0) + (copied == frames)  # log, database, and the log's new beginning
        TALLY.add(calls=syncs, waits=syncs)


def connect(path: Path, *, create: bool) -> Database:
    """Open the journal at `path`. Raises ConfigError where there is none and none is to be made; else as `meaning`."""
    try:
        if create:
            make_folders(path.parent)
        elif not path.exists():
            raise ConfigError(f"{path} does not exist: start the coordinator there first (fedpi-coordinator serve)")
        is_new = not path.exists()
    except OSError as error:
        raise state_error(f"{path}: cannot open the journal", error) from error
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=BUSY_S, factory=Database)
    except sqlite3.DatabaseError as error:
        raise meaning(path, error) from error
    try:
        db.path = path
        db.row_factory = sqlite3.Row
        if create:
            _write_ahead(db)
        if is_new:
            hand_over(path, like=path.parent)
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        db.execute("PRAGMA wal_autocheckpoint = 0")
    except BaseException:
        db.close()
        raise
    return db


def _write_ahead(db: Database) -> None:
    """Let readers and the writer go side by side, for good. SQLite itself does not wait here for others to finish."""
    end = time.monotonic() + BUSY_S
    while True:
        try:
            sqlite3.Connection.execute(db, "PRAGMA journal_mode = WAL")
        except sqlite3.DatabaseError as error:
            if _family(error) not in BUSY or time.monotonic() > end:
                raise meaning(db.path, error) from error
            time.sleep(0.02)
        else:
            return


def meaning(path: Path, error: sqlite3.DatabaseError) -> FedpiError | sqlite3.DatabaseError:
    """Return what to raise for an error of SQLite's.

    DiskFullError: the disk is full, read-only or fails. WorkError: another process holds the journal. DataError: it
    is damaged.
    ConfigError: this account may not use it. What is a bug of ours comes back as it is.
    """
    family = _family(error)
    if (state := _disk_state(path, error)) is not None:
        return DiskFullError(f"{path}: the journal cannot be written, {state}: {error}", state)
    if family in BUSY:
        return WorkError(f"{path}: another process has held the journal for {BUSY_S:g} s; try again: {error}")
    if family in DENIED:
        return ConfigError(f"{path}: cannot open the journal: {error}; run this with sudo, or as the account it is of")
    if family in DAMAGED:
        return DataError(f"{path}: the journal is damaged: {error}; put it back from a backup")
    return error


def _disk_state(path: Path, error: sqlite3.DatabaseError) -> str | None:
    """Say what the disk is like where that is the cause of an error."""
    family = _family(error)
    if getattr(error, "sqlite_errorcode", None) in FULL or (family in DENIED and _is_full(path)):
        return DISK_STATES[errno.ENOSPC]
    if family in DENIED and _is_read_only(path):
        return DISK_STATES[errno.EROFS]
    return DISK_STATES[errno.EIO] if family == sqlite3.SQLITE_IOERR else None


def _family(error: sqlite3.DatabaseError) -> int:
    """Return SQLite's primary code, the low byte; text that cannot be decoded comes without one and is damage."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return sqlite3.SQLITE_CORRUPT if isinstance(error, sqlite3.OperationalError) else sqlite3.SQLITE_OK
    return int(code) & 0xFF


def _is_full(path: Path) -> bool:
    disk = os.statvfs(_there(path))
    return disk.f_bavail == 0 or (disk.f_files > 0 and disk.f_favail == 0)


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(_there(path)).f_flag & os.ST_RDONLY)


def _there(path: Path) -> Path:
    return path.parent if path.parent.exists() else Path("/")
