"""The connection to the journal's database: how it is opened, what is durable, what its errors mean."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.errors import ConfigError, DiskFullError, WorkError

FULL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})
"""What SQLite says of a full disk: of the journal itself, and of the index beside it."""
CACHE_KIB = 256
"""Pages kept in memory: those of the open round. SQLite's own 2 MB would fill with rounds that are over."""


class Database(sqlite3.Connection):
    """A connection whose statements raise WorkError when the disk fails, DiskFullError when it is full."""

    def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:
        """Run one statement; outside of `transaction` it is durable."""
        try:
            return super().execute(sql, values)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in FULL:
                raise DiskFullError(f"the journal has no room on its disk: {error}") from error
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR:  # the low byte is the family
                raise WorkError(f"the journal's disk fails: {error}") from error
            raise

    @contextmanager
    def transaction(self, *, is_durable: bool) -> Iterator[None]:
        """Take all statements inside together, or none where one raises; `is_durable` waits for the disk."""
        self.execute(f"PRAGMA synchronous = {'FULL' if is_durable else 'NORMAL'}")
        try:
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.execute("COMMIT")
            finally:
                if self.in_transaction:
                    self.rollback()
        finally:
            self.execute("PRAGMA synchronous = FULL")


def connect(path: Path, *, create: bool) -> Database:
    """Open the journal at `path`. Raises ConfigError where there is none and none is to be made, sqlite3.Error."""
    if not create and not path.exists():
        raise ConfigError(f"{path} does not exist: start the coordinator there first (fedpi-coordinator serve)")
    path.parent.mkdir(parents=True, exist_ok=True)
    db = sqlite3.connect(path, isolation_level=None, timeout=30.0, factory=Database)
    db.row_factory = sqlite3.Row
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return db
