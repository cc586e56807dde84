"""The journal kept small: old rounds taken out of it, and its write-ahead log copied before a commit has to."""

import time
from collections.abc import Collection
from contextlib import suppress

from common.errors import DiskFullError
from coordinator.database import Database
from coordinator.rows import to_json

COMMITS_A_LOG = 1000
"""After so many the log is copied: it has some 15 MB then."""
LOG_SINCE = "log_since"
"""The fact that says when the log began: Unix seconds."""


class Upkeep:
    """What of the journal concerns its size."""

    _db: Database

    def renew_log(self, least_commits: int = 0) -> None:
        """Copy the write-ahead log into the database, if it has so many commits, and begin it anew.

        It is written to at once: the first write after a copy waits for the disk, and is to be no round's commit.
        """
        if self._db.commits < least_commits:
            return
        with suppress(DiskFullError):  # nothing is lost: the log grows, and who finds no room in it says so
            self._db.copy_log()
            with self._db.transaction(is_durable=False):
                self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (LOG_SINCE, str(time.time())))

    def released_rounds(self) -> set[int]:
        """Numbers of the rounds whose models were released."""
        return {int(row["round"]) for row in self._db.rows("SELECT round FROM releases")}

    def delete_rounds(self, keep: int, needed: Collection[int], most: int) -> int:
        """Delete the `most` oldest rounds beyond the `keep` newest; returns how many there were.

        Those of `needed` stay, and those that are open or of a run that is not over.
        """
        oldest = (
            "SELECT round FROM rounds WHERE round <= (SELECT MAX(round) FROM rounds) - ?"
            " AND phase IN ('committed', 'abandoned')"
            " AND run NOT IN (SELECT run FROM runs WHERE state NOT IN ('done', 'stopped'))"
            " AND round NOT IN (SELECT value FROM json_each(?)) ORDER BY round LIMIT ?"
        )
        with self._db.transaction(is_durable=True):
            found = [row["round"] for row in self._db.rows(oldest, (keep, to_json(sorted(needed)), most))]
            gone = (to_json(found),)
            self._db.execute("DELETE FROM ledger WHERE round IN (SELECT value FROM json_each(?))", gone)
            self._db.execute("DELETE FROM rounds WHERE round IN (SELECT value FROM json_each(?))", gone)
        self.renew_log()
        return len(found)

    def shrink(self) -> None:
        """Give the room of what was deleted back to the disk; needs as much for a moment. Raises DiskFullError."""
        self._db.execute("VACUUM")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.renew_log()

    def file_bytes(self) -> int:
        """Size of the journal's file."""
        return self._db.path.stat().st_size
