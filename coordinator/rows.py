"""What the journal holds, as rows that people and programs read, and how a row of the database becomes one."""

import sqlite3
import time
from typing import Any, TypeVar

import msgspec

from common.errors import DataError
from common.health import Health
from common.messages import Metrics, Ref
from coordinator.round_state import Member, Round, Standing
from coordinator.story import mean_metrics

T = TypeVar("T")
TROUBLE = "trouble"
"""The fact that says why the coordinator that is served opens no round: a sentence, empty where nothing is wrong."""


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


def to_json(value: Any) -> str:
    """Write what a column holds as text."""
    return msgspec.json.encode(value).decode()


def from_json(text: str, kind: type[T]) -> T:
    """Read what `to_json` wrote; raises DataError where it is damaged."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, TypeError, UnicodeError) as error:
        raise DataError(f"the journal is damaged: {error}; put it back from a backup") from error


def to_row(kind: type[T], row: sqlite3.Row, **decoded: Any) -> T:
    """Make a row of `kind` of the columns of its names; `decoded` stands for those that hold JSON."""
    return kind(**{field: decoded.get(field, row[field]) for field in kind.__struct_fields__})  # type: ignore[attr-defined]  # structs all


def to_round_row(row: sqlite3.Row, round_: Round) -> RoundRow:
    """Make a row for people of a round and its row in the journal."""
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
        invited=tuple(m.device for m in round_.members if m.standing not in {Standing.JOINED, Standing.UNABLE}),
        reported=tuple(m.device for m in round_.reported),
        metrics=mean_metrics(round_),
    )


INSERT_MEMBER = """
INSERT INTO ledger (standing, reason, num_examples, update_id, metrics, offers, update_ref, round, device)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
UPDATE_MEMBER = """
UPDATE ledger SET standing = ?, reason = ?, num_examples = ?, update_id = ?, metrics = ?, offers = ?, update_ref = ?
WHERE round = ? AND device = ?
"""
"""In place: a row that is replaced is written to every index anew."""


def member_values(number: int, member: Member) -> tuple[object, ...]:
    """Return what the statements above take: all but when its update last advanced, by a clock that ends with us."""
    update = member.update.id if member.update else ""
    columns = (member.standing, member.reason, member.num_examples, update, to_json(member.metrics), member.offers)
    return (*columns, to_json(member.update), number, member.device)


def to_member(row: sqlite3.Row) -> Member:
    """Make a member of its row in the ledger."""
    update = from_json(row["update_ref"], Ref | None)  # type: ignore[arg-type]  # a union is no class
    return Member(
        device=row["device"],
        standing=Standing(row["standing"]),
        update=update,
        earlier=frozenset({update.id} if update else ()),
        offers=row["offers"],
        num_examples=row["num_examples"],
        reason=row["reason"],
        metrics=from_json(row["metrics"], Metrics),
    )
