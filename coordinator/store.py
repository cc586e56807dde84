"""The coordinator's journal: SQLite, written before anything is said.

Commands that only look (`status`, `rounds`, ...) and the running service share it: readers never
block the writer (WAL). A run that the operator asks for is a row, so it survives a restart too.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.health import Health
from common.messages import Label, Metrics, Ref, Result
from coordinator import outcome, records, schema
from coordinator.database import connect
from coordinator.round_state import OPEN, Member, Phase, Round, result_of
from coordinator.round_syncs import RoundSyncs
from coordinator.rows import (
    INSERT_MEMBER,
    UPDATE_MEMBER,
    DeviceRow,
    LedgerRow,
    Release,
    RoundRow,
    Run,
    Totals,
    from_json,
    member_values,
    to_json,
    to_member,
    to_round_row,
    to_row,
)
from coordinator.runs import Runs
from coordinator.upkeep import COMMITS_A_LOG, Upkeep

MADE_WITHIN_S = 2.0
"""How long to wait for the tables of a journal that is there already: its first coordinator makes them."""
FORGET = "forget/"
"""Facts of this name and a device's ask the service to forget it; a fedpi that knows nothing of them leaves them."""


class Store(Runs, Upkeep):
    """The journal at `path`. One process writes rounds; any process may read, and ask for runs."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open it, or make it. Raises ConfigError where there is none, DataError where it is damaged, WorkError."""
        self._db = connect(path, create=create)
        try:
            self._migrate(path, create=create)
        except BaseException:
            self._db.close()
            raise
        self._saved: dict[str, Member] = {}
        self._saved_phase: tuple[int, str, Phase] | None = None
        self._saved_round = 0
        self._syncs = RoundSyncs()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    # ---- facts: epoch-independent single values ---------------------------------------------

    def fact(self, name: str) -> str | None:
        """Return a named value."""
        row = self._db.row("SELECT value FROM facts WHERE name = ?", (name,))
        return None if row is None else str(row["value"])

    def set_fact(self, name: str, value: str) -> None:
        """Keep a named value, durably."""
        self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def note_fact(self, name: str, value: str) -> None:
        """Keep a named value that is heard again where a power cut takes it."""
        with self._db.transaction(is_durable=False):
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def global_model(self) -> Ref | None:
        """Return the current global model: the last committed round's, or the initial one."""
        text = self.fact("global_model")
        return None if text is None else from_json(text, Ref)

    def set_global_model(self, ref: Ref) -> None:
        """Keep the initial global model."""
        self.set_fact("global_model", to_json(ref))

    # ---- rounds -----------------------------------------------------------------------------

    def save(self, round_: Round, run: int, traffic: tuple[int, int] = (0, 0)) -> None:
        """Checkpoint a round: its changed rows in the ledger, and when its phase is new, the round itself.

        With the round go the bytes that it moved (down, up) and, once committed, its outcome. Every checkpoint outlives
        the process. Only the last one waits for the disk: devices keep their updates until a round is over, so what a
        power cut takes before, they say again.
        """
        is_over = not records.is_unfinished(round_)
        is_new = (round_.number, round_.plan.generation, round_.phase) != self._saved_phase
        with self._syncs.of_saving(round_), self._db.transaction(is_durable=is_over):
            if is_new:
                self._save_phase(round_, run, traffic, is_over=is_over)
            self._save_ledger(round_)
        self._saved_phase = (round_.number, round_.plan.generation, round_.phase)
        self._saved, self._saved_round = {m.device: m for m in round_.members}, round_.number

    def save_traffic(self, number: int, traffic: tuple[int, int]) -> None:
        """Note the bytes (down, up) that the open round has moved so far."""
        with self._db.transaction(is_durable=False):
            self._db.execute("UPDATE rounds SET bytes_down = ?, bytes_up = ? WHERE round = ?", (*traffic, number))

    def _save_phase(self, round_: Round, run: int, traffic: tuple[int, int], *, is_over: bool) -> None:
        now = time.time()
        self._db.execute(
            "INSERT INTO rounds (round, run, phase, state, opened) VALUES (?, ?, ?, '', ?) ON CONFLICT DO NOTHING",
            (round_.number, run, round_.phase, now),
        )
        self._db.execute(
            "UPDATE rounds SET phase = ?, state = ?, closed = ?, bytes_down = ?, bytes_up = ? WHERE round = ?",
            (round_.phase, records.write(round_), now if is_over else None, *traffic, round_.number),
        )
        for name, value in outcome.facts(round_, self.fact).items():
            self.set_fact(name, value)

    def tidy_log(self) -> None:
        """Copy the write-ahead log into the database once it is long, unless a round is being committed."""
        if self._saved_phase is None or self._saved_phase[2] is not Phase.AGGREGATING:
            self.renew_log(COMMITS_A_LOG)

    def open_round(self) -> tuple[Round, int, tuple[int, int]] | None:
        """Return the round that was not over when the process ended, its run, and its traffic so far."""
        row = self._db.row("SELECT * FROM rounds ORDER BY round DESC LIMIT 1")
        if row is None or row["phase"] not in {*OPEN, Phase.AGGREGATING}:
            return None
        return self._round(row), int(row["run"]), (int(row["bytes_down"]), int(row["bytes_up"]))

    def _round(self, row: Any) -> Round:
        rows = self._db.rows("SELECT * FROM ledger WHERE round = ? ORDER BY device", (row["round"],))
        return records.read(row["state"], [to_member(entry) for entry in rows])

    def last_round(self) -> int:
        """Number of the newest round, 0 before the first."""
        return self._number("SELECT MAX(round) FROM rounds")

    def first_round(self, run: int) -> int:
        """Number of a run's first round, 0 before it."""
        return self._number("SELECT MIN(round) FROM rounds WHERE run = ?", (run,))

    def last_committed(self, before: int | None = None) -> int:
        """Number of the newest committed round, if wanted of those before one; 0 where there is none."""
        return self._number(
            "SELECT MAX(round) FROM rounds WHERE phase = 'committed' AND (?1 IS NULL OR round < ?1)", (before,)
        )

    def count_rounds(self) -> int:
        """How many rounds the journal holds."""
        return self._number("SELECT COUNT(*) FROM rounds")

    def rounds(self, since: int = 0, *, last: int | None = None) -> list[RoundRow]:
        """Return the rounds after number `since`, if wanted no more than the `last` ones, oldest first."""
        rows = self._db.rows(
            "SELECT * FROM rounds WHERE round > ? ORDER BY round DESC LIMIT ?", (since, -1 if last is None else last)
        )
        return [to_round_row(row, self._round(row)) for row in rows][::-1]

    def round_row(self, number: int) -> RoundRow | None:
        """Return one round."""
        row = self._db.row("SELECT * FROM rounds WHERE round = ?", (number,))
        return None if row is None else to_round_row(row, self._round(row))

    def ledger(self, round_: int | None = None) -> list[LedgerRow]:
        """Return what became of every device, in one round or in all."""
        if round_ is not None:
            rows = self._db.rows("SELECT * FROM ledger WHERE round = ? ORDER BY device", (round_,))
        else:
            rows = self._db.rows("SELECT * FROM ledger ORDER BY round, device")
        return [to_row(LedgerRow, row, metrics=from_json(row["metrics"], Metrics)) for row in rows]

    def result(self, number: int, generation: str, device: str) -> Result | None:
        """Return what became of a device in a round of a generation that is over; None where there is no such round."""
        row = self._db.row("SELECT * FROM rounds WHERE round = ?", (number,))
        if row is None or row["phase"] not in {Phase.COMMITTED, Phase.ABANDONED}:
            return None
        round_ = self._round(row)
        member = round_.member(device)
        if member is None or round_.plan.generation != generation:
            return None
        return result_of(round_, member)

    def standings(self) -> dict[tuple[str, str], int]:
        """Count rounds by device and standing, without reading them one by one."""
        rows = self._db.rows(schema.STANDINGS)
        return {(device, standing): count for device, standing, count in rows}

    def totals(self) -> Totals:
        """Return what all rounds come to, without reading them one by one."""
        phases = self._db.rows("SELECT phase, COUNT(*), SUM(bytes_down), SUM(bytes_up) FROM rounds GROUP BY phase")
        sums = [tuple(row) for row in phases]
        return Totals(
            rounds={phase: count for phase, count, _, _ in sums},
            standings=self.standings(),
            bytes_down=sum(down for _, _, down, _ in sums),
            bytes_up=sum(up for _, _, _, up in sums),
        )

    # ---- releases and devices ---------------------------------------------------------------

    def add_release(self, release: Release) -> None:
        """Keep a release; the newest is the one to serve."""
        values = (
            release.release,
            to_json(release.model),
            release.round,
            to_json(release.labels),
            release.created,
        )
        self._db.execute("INSERT OR REPLACE INTO releases VALUES (?, ?, ?, ?, ?)", values)

    def newest_release(self) -> Release | None:
        """Return the release to serve."""
        row = self._db.row("SELECT * FROM releases ORDER BY rowid DESC LIMIT 1")
        if row is None:
            return None
        labels = from_json(row["labels"], tuple[Label, ...])
        return to_row(Release, row, model=from_json(row["model"], Ref), labels=labels)

    def see_devices(self, rows: list[DeviceRow], heard: Mapping[str, float] | None = None) -> None:
        """Note what devices last said of themselves, and when others were `heard` of, in Unix seconds."""
        with self._db.transaction(is_durable=False):
            for row in rows:
                values = (row.device, row.state, row.doing, row.release, row.seen, row.refused, to_json(row.health))
                self._db.execute("INSERT OR REPLACE INTO devices VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            for device, at in (heard or {}).items():
                self._db.execute("UPDATE devices SET seen = ? WHERE device = ?", (at, device))

    def devices(self) -> list[DeviceRow]:
        """Return every device ever heard of."""
        rows = self._db.rows("SELECT * FROM devices ORDER BY device")
        return [to_row(DeviceRow, row, health=from_json(row["health"], Health | None)) for row in rows]  # type: ignore[arg-type]  # a union is no class

    # ---- devices that people take out -------------------------------------------------------

    def forget(self, device: str) -> bool:
        """Take a device out of `devices`, and ask the service to take it out of the broker; False for an unknown one.

        The rounds that it took part in stay as they were.
        """
        with self._db.transaction(is_durable=True):
            found = self._db.execute("DELETE FROM devices WHERE device = ?", (device,)).rowcount
            if found:
                self.set_fact(f"{FORGET}{device}", "asked")
        return found > 0

    def to_forget(self) -> list[str]:
        """Return the devices that the service is asked to take out of the broker."""
        rows = self._db.rows("SELECT name FROM facts WHERE name >= ? AND name < ?", (FORGET, f"{FORGET}~"))
        return [str(row["name"]).removeprefix(FORGET) for row in rows]

    def have_forgotten(self, device: str) -> None:
        """Note that a device is taken out everywhere."""
        with self._db.transaction(is_durable=True):
            self._db.execute("DELETE FROM devices WHERE device = ?", (device,))
            self._db.execute("DELETE FROM facts WHERE name = ?", (f"{FORGET}{device}",))

    # ---- inside -----------------------------------------------------------------------------

    def _save_ledger(self, round_: Round) -> None:
        number, saved = round_.number, self._saved
        if self._saved_round != number:
            saved = {}
            self._db.execute("DELETE FROM ledger WHERE round = ?", (number,))
        for device in saved.keys() - {m.device for m in round_.members}:
            self._db.execute("DELETE FROM ledger WHERE round = ? AND device = ?", (number, device))
        for m in round_.members:
            if (known := saved.get(m.device)) is not m and known != m:
                self._db.execute(INSERT_MEMBER if known is None else UPDATE_MEMBER, member_values(number, m))

    def _number(self, sql: str, values: tuple[object, ...] = ()) -> int:
        row = self._db.row(sql, values)
        return 0 if row is None or row[0] is None else int(row[0])

    def _migrate(self, path: Path, *, create: bool) -> None:
        end = time.monotonic() + MADE_WITHIN_S
        while (version := self._version()) == 0 and not create and time.monotonic() < end:
            time.sleep(0.02)  # a coordinator may be making it just now
        if version > schema.VERSION:
            raise ConfigError(
                f"{path} has schema version {version}; this fedpi reads version {schema.VERSION}: upgrade fedpi"
            )
        if version == 0 and not create:
            raise ConfigError(f"{path} is empty: start the coordinator there first (fedpi-coordinator serve)")
        if version < schema.VERSION:
            with self._db.transaction(is_durable=True):
                for statement in schema.statements(self._version()):  # another process may have been faster
                    self._db.execute(statement)
        if create:
            for statement in schema.INDEXES:
                self._db.execute(statement)
            self.renew_log()

    def _version(self) -> int:
        return self._number("PRAGMA user_version")


__all__ = ["DeviceRow", "LedgerRow", "Release", "RoundRow", "Run", "Store", "Totals"]
