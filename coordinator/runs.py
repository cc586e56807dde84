"""Runs in the journal: the rounds that the operator asked for."""

from typing import Literal

from coordinator.database import Database
from coordinator.rows import Run, to_row

# A round counts as begun once it is in the journal, so a crash in between costs the run no round.
_RUNS = "SELECT run, rounds, state, (SELECT COUNT(*) FROM rounds WHERE rounds.run = runs.run) AS begun FROM runs"


class Runs:
    """What of the journal concerns runs; one of them is under way at a time. Any process may ask for one."""

    _db: Database

    def ask_for(self, rounds: int) -> int:
        """Ask for a run of `rounds` rounds; returns its number."""
        cursor = self._db.execute("INSERT INTO runs (rounds, state) VALUES (?, 'queued')", (rounds,))
        return int(cursor.lastrowid or 0)

    def run(self, number: int) -> Run | None:
        """Return one run."""
        row = self._db.row(f"{_RUNS} WHERE run = ?", (number,))
        return None if row is None else to_row(Run, row)

    def active_run(self) -> Run | None:
        """Return the oldest run that is not over."""
        row = self._db.row(f"{_RUNS} WHERE state NOT IN ('done', 'stopped') ORDER BY run LIMIT 1")
        return None if row is None else to_row(Run, row)

    def end_run(self, number: int, state: Literal["done", "stopped"]) -> None:
        """Note that a run is over."""
        self._db.execute("UPDATE runs SET state = ? WHERE run = ?", (state, number))

    def go_on(self, number: int) -> bool:
        """Note that a run is running; returns False where the operator has stopped it in the meantime."""
        self._db.execute("UPDATE runs SET state = 'running' WHERE run = ? AND state = 'queued'", (number,))
        row = self._db.row("SELECT state FROM runs WHERE run = ?", (number,))
        return row is not None and row["state"] == "running"

    def stop_runs(self, *, now: bool) -> int:
        """Ask the service to stop after the current round, or at once; returns how many runs that ends."""
        cursor = self._db.execute(
            "UPDATE runs SET state = CASE WHEN state = 'queued' THEN 'stopped' ELSE ? END"
            " WHERE state NOT IN ('done', 'stopped')",
            ("aborting" if now else "stopping",),
        )
        return cursor.rowcount
