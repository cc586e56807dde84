"""The coordinator's journal: SQLite, written before anything is said.

Commands that only look (`status`, `rounds`, ...) and the running service share it: readers never
block the writer (WAL). A run that the operator asks for is a row, so it survives a restart too.
"""

import sqlite3
import time
from pathlib import Path
from typing import Any, Literal

import msgspec

from common.errors import ConfigError
from common.health import Health
from common.messages import Metrics, Ref
from coordinator import outcome, schema
from coordinator.database import connect
from coordinator.round import OPEN, Member, Phase, Round, Standing
from coordinator.story import mean_metrics

# A round counts as begun once it is in the journal, so a crash in between costs the run no round.
_RUNS = "SELECT run, rounds, state, (SELECT COUNT(*) FROM rounds WHERE rounds.run = runs.run) AS begun FROM runs"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row that a person or a program reads; times are Unix seconds."""


class LedgerRow(Row, frozen=True):
    """What became of one device in one round."""

    round: int
    device: str
    standing: str
    reason: str
    num_examples: int
    update_id: str
    metrics: Metrics


class RoundRow(Row, frozen=True):
    """One round as it stands."""

    round: int
    run: int
    phase: str
    reason: str
    opened: float
    closed: float | None
    bytes_down: int
    bytes_up: int
    model: str
    invited: tuple[str, ...]
    reported: tuple[str, ...]
    metrics: Metrics
    """Mean of the devices' own figures."""

    @property
    def seconds(self) -> float:
        """How long it took, or takes already."""
        return (self.closed or time.time()) - self.opened


class Run(Row, frozen=True):
    """Rounds that the operator asked for. State: queued, running, stopping, aborting, done or stopped."""

    run: int
    rounds: int
    begun: int
    state: str


class Release(Row, frozen=True):
    """A TFLite model for the fleet."""

    release: str
    model: Ref
    round: int
    labels: tuple[str, ...]
    created: float


class DeviceRow(Row, frozen=True):
    """A device as last heard of."""

    device: str
    state: str
    doing: str
    release: str
    seen: float
    refused: int = 0
    """Messages that it dropped since its start because they broke the protocol."""
    health: Health | None = None


class Totals(Row, frozen=True):
    """Sums over all rounds. `rounds` by phase, `standings` by device and standing; bytes down and up."""

    rounds: dict[str, int]
    standings: dict[tuple[str, str], int]
    bytes_down: int
    bytes_up: int


class Store:
    """The journal at `path`. One process writes rounds; any process may read, and ask for runs."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        try:
            self._db = connect(path, create=create)
            self._migrate(path)
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"{path}: cannot use the journal: {error}") from error
        self._saved: dict[str, Member] = {}
        self._saved_round = 0

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    # ---- facts: epoch-independent single values ---------------------------------------------

    def fact(self, name: str) -> str | None:
        """Return a named value."""
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row["value"])

    def set_fact(self, name: str, value: str) -> None:
        """Keep a named value, durably."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def global_model(self) -> Ref | None:
        """Return the current global model: the last committed round's, or the initial one."""
        text = self.fact("global_model")
        return None if text is None else msgspec.json.decode(text, type=Ref)

    def set_global_model(self, ref: Ref) -> None:
        """Keep the initial global model."""
        self.set_fact("global_model", _json(ref))

    # ---- rounds -----------------------------------------------------------------------------

    def save(self, round_: Round, run: int, traffic: tuple[int, int] = (0, 0)) -> None:
        """Checkpoint a round, its ledger, the bytes that it moved (down, up) and, once committed, its outcome.

        Every checkpoint outlives the process. Only the last one waits for the disk: devices keep their
        updates until a round is over, so what a power cut takes before, they say again.
        """
        is_over = round_.phase in {Phase.COMMITTED, Phase.ABANDONED}
        now = time.time()
        with self._db.transaction(is_durable=is_over):
            self._db.execute(
                "INSERT INTO rounds (round, run, phase, state, opened) VALUES (?, ?, ?, '', ?) ON CONFLICT DO NOTHING",
                (round_.number, run, round_.phase, now),
            )
            self._db.execute(
                "UPDATE rounds SET phase = ?, state = ?, closed = ?, bytes_down = ?, bytes_up = ? WHERE round = ?",
                (round_.phase, _json(round_), now if is_over else None, *traffic, round_.number),
            )
            self._save_ledger(round_)
            for name, value in outcome.facts(round_, self.fact).items():
                self.set_fact(name, value)
        self._saved, self._saved_round = {m.device: m for m in round_.members}, round_.number

    def open_round(self) -> tuple[Round, int, tuple[int, int]] | None:
        """Return the round that was not over when the process ended, its run, and its traffic so far."""
        row = self._db.execute("SELECT * FROM rounds ORDER BY round DESC LIMIT 1").fetchone()
        if row is None or row["phase"] not in {*OPEN, Phase.AGGREGATING}:
            return None
        round_ = msgspec.json.decode(row["state"], type=Round)
        return round_, int(row["run"]), (int(row["bytes_down"]), int(row["bytes_up"]))

    def last_round(self) -> int:
        """Number of the newest round, 0 before the first."""
        return int(self._db.execute("SELECT COALESCE(MAX(round), 0) FROM rounds").fetchone()[0])

    def rounds(self, since: int = 0) -> list[RoundRow]:
        """Return the rounds after number `since`, oldest first."""
        rows = self._db.execute("SELECT * FROM rounds WHERE round > ? ORDER BY round", (since,)).fetchall()
        return [_round_row(row) for row in rows]

    def ledger(self, round_: int | None = None) -> list[LedgerRow]:
        """Return what became of every device, in one round or in all."""
        rows = self._db.execute(
            "SELECT * FROM ledger WHERE ? IS NULL OR round = ? ORDER BY round, device", (round_, round_)
        )
        return [_row(LedgerRow, row, metrics=msgspec.json.decode(row["metrics"])) for row in rows]

    def has_counted(self, round_: int, device: str, update: str) -> bool:
        """Whether a round counts an update."""
        found = self._db.execute(
            "SELECT 1 FROM ledger WHERE round = ? AND device = ? AND update_id = ? AND standing = 'reported'",
            (round_, device, update),
        )
        return found.fetchone() is not None

    def totals(self) -> Totals:
        """Return what all rounds come to, without reading them one by one."""
        phases = self._db.execute("SELECT phase, COUNT(*), SUM(bytes_down), SUM(bytes_up) FROM rounds GROUP BY phase")
        sums = [tuple(row) for row in phases]
        standings = self._db.execute("SELECT device, standing, COUNT(*) FROM ledger GROUP BY device, standing")
        return Totals(
            rounds={phase: count for phase, count, _, _ in sums},
            standings={(device, standing): count for device, standing, count in standings},
            bytes_down=sum(down for _, _, down, _ in sums),
            bytes_up=sum(up for _, _, _, up in sums),
        )

    # ---- runs -------------------------------------------------------------------------------

    def ask_for(self, rounds: int) -> int:
        """Ask for a run of `rounds` rounds; returns its number."""
        cursor = self._db.execute("INSERT INTO runs (rounds, state) VALUES (?, 'queued')", (rounds,))
        return int(cursor.lastrowid or 0)

    def run(self, number: int) -> Run | None:
        """Return one run."""
        row = self._db.execute(f"{_RUNS} WHERE run = ?", (number,)).fetchone()
        return None if row is None else _row(Run, row)

    def active_run(self) -> Run | None:
        """Return the oldest run that is not over."""
        row = self._db.execute(f"{_RUNS} WHERE state NOT IN ('done', 'stopped') ORDER BY run LIMIT 1").fetchone()
        return None if row is None else _row(Run, row)

    def end_run(self, number: int, state: Literal["done", "stopped"]) -> None:
        """Note that a run is over."""
        self._db.execute("UPDATE runs SET state = ? WHERE run = ?", (state, number))

    def go_on(self, number: int) -> bool:
        """Note that a run is running; returns False where the operator has stopped it in the meantime."""
        cursor = self._db.execute(
            "UPDATE runs SET state = 'running' WHERE run = ? AND state IN ('queued', 'running')", (number,)
        )
        return cursor.rowcount == 1

    def stop_runs(self, *, now: bool) -> int:
        """Ask the service to stop after the current round, or at once; returns how many runs that ends."""
        cursor = self._db.execute(
            "UPDATE runs SET state = CASE WHEN state = 'queued' THEN 'stopped' ELSE ? END"
            " WHERE state NOT IN ('done', 'stopped')",
            ("aborting" if now else "stopping",),
        )
        return cursor.rowcount

    # ---- releases and devices ---------------------------------------------------------------

    def add_release(self, release: Release) -> None:
        """Keep a release; the newest is the one to serve."""
        values = (
            release.release,
            _json(release.model),
            release.round,
            _json(release.labels),
            release.created,
        )
        self._db.execute("INSERT OR REPLACE INTO releases VALUES (?, ?, ?, ?, ?)", values)

    def newest_release(self) -> Release | None:
        """Return the release to serve."""
        row = self._db.execute("SELECT * FROM releases ORDER BY rowid DESC LIMIT 1").fetchone()
        if row is None:
            return None
        model, labels = msgspec.json.decode(row["model"], type=Ref), tuple(msgspec.json.decode(row["labels"]))
        release: Release = _row(Release, row, model=model, labels=labels)
        return release

    def see_devices(self, rows: list[DeviceRow]) -> None:
        """Note what devices last said of themselves."""
        with self._db.transaction(is_durable=False):
            for row in rows:
                values = (row.device, row.state, row.doing, row.release, row.seen, row.refused, _json(row.health))
                self._db.execute("INSERT OR REPLACE INTO devices VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def devices(self) -> list[DeviceRow]:
        """Return every device ever heard of."""
        rows = self._db.execute("SELECT * FROM devices ORDER BY device")
        return [_row(DeviceRow, row, health=msgspec.json.decode(row["health"], type=Health | None)) for row in rows]

    # ---- inside -----------------------------------------------------------------------------

    def _save_ledger(self, round_: Round) -> None:
        number, saved = round_.number, self._saved
        if self._saved_round != number:
            saved = {}
            self._db.execute("DELETE FROM ledger WHERE round = ?", (number,))
        for device in saved.keys() - {m.device for m in round_.members}:
            self._db.execute("DELETE FROM ledger WHERE round = ? AND device = ?", (number, device))
        for m in round_.members:
            if saved.get(m.device) != m:
                update = m.update.id if m.update else ""
                values = (number, m.device, m.standing, m.reason, m.num_examples, update, _json(m.metrics))
                self._db.execute("INSERT OR REPLACE INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    def _migrate(self, path: Path) -> None:
        if (version := self._version()) > schema.VERSION:
            raise ConfigError(
                f"{path} has schema version {version}; this fedpi reads version {schema.VERSION}: upgrade fedpi"
            )
        if version < schema.VERSION:
            with self._db.transaction(is_durable=True):
                for statement in schema.statements(self._version()):  # another process may have been faster
                    self._db.execute(statement)

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _row(kind: Any, row: sqlite3.Row, **decoded: Any) -> Any:
    return kind(**{field: decoded.get(field, row[field]) for field in kind.__struct_fields__})


def _round_row(row: sqlite3.Row) -> RoundRow:
    round_ = msgspec.json.decode(row["state"], type=Round)
    return RoundRow(
        round=row["round"],
        run=row["run"],
        phase=row["phase"],
        reason=round_.reason,
        opened=row["opened"],
        closed=row["closed"],
        bytes_down=row["bytes_down"],
        bytes_up=row["bytes_up"],
        model=round_.result.id if round_.result else "",
        invited=tuple(m.device for m in round_.members if m.standing is not Standing.JOINED),
        reported=tuple(m.device for m in round_.reported),
        metrics=mean_metrics(round_),
    )
