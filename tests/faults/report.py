"""What `runs/faults/report.json` holds, and the table that people read."""

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from tests.faults.row import Row
from tests.faults.soak import Soak

if TYPE_CHECKING:
    from rich.table import Table

NO_MATRIX: Mapping[str, str] = {}


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """One fault, injected once. `resent_share`: chunk bytes sent again, as a share of the model."""

    row: int
    broker: str
    seed: int
    survived: bool
    recovery_s: float
    resent_share: float | None
    note: str
    seconds: float
    replay: str

    @property
    def sentence(self) -> str:
        """What became of it, and how to see it again."""
        verdict = "survived" if self.survived else f"NOT SURVIVED, replay with: {self.replay}:"
        return f"{self.broker} row {self.row} seed {self.seed}: {verdict} {self.note}"


class Undisturbed(msgspec.Struct, frozen=True, kw_only=True):
    """The first round of a federation, without a fault: blob ids of its base, of what it made, of the oracle's."""

    folder: str
    broker: str
    base: str
    model: str
    oracle: str
    seconds: float
    resent_bytes: int


class RowReport(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table. Seconds and shares are over the injections that were survived."""

    row: int
    fault: str
    how: str
    holds: str
    model_bytes: int
    injections: int
    survived: int
    recovery_median_s: float
    recovery_worst_s: float
    resent_median: float | None
    resent_worst: float | None
    verdict: str
    each: tuple[Injection, ...]


class BrokerReport(msgspec.Struct, frozen=True, kw_only=True):
    """A broker beside Mosquitto: how many undisturbed rounds were the oracle's, and its rows; or why it was skipped."""

    broker: str
    skipped: str
    undisturbed: int
    rows: tuple[RowReport, ...]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run; `soak` where all rows were run."""

    seconds: float
    all_survived: bool
    undisturbed: tuple[Undisturbed, ...]
    rows: tuple[RowReport, ...]
    brokers: tuple[BrokerReport, ...] = ()
    soak: Soak | None = None


def summarise(
    rows: Sequence[Row],
    injections: Sequence[Injection],
    undisturbed: Sequence[Undisturbed],
    seconds: float,
    matrix: Mapping[str, str] = NO_MATRIX,
) -> Report:
    """Put what was run together. `matrix`: the other brokers, with a sentence where one was skipped."""
    ours = [i for i in injections if i.broker not in matrix]
    reports = tuple(_row(row, [i for i in ours if i.row == row.number]) for row in rows)
    brokers = tuple(
        BrokerReport(
            broker=kind,
            skipped=skipped,
            undisturbed=sum(u.broker == kind for u in undisturbed),
            rows=tuple(_row(row, mine) for row in rows if (mine := _of(injections, row.number, kind))),
        )
        for kind, skipped in matrix.items()
    )
    every = [*reports, *(report for broker in brokers for report in broker.rows)]
    return Report(
        seconds=seconds,
        all_survived=all(report.verdict == "survived" for report in every),
        undisturbed=tuple(undisturbed),
        rows=reports,
        brokers=brokers,
    )


def _of(injections: Sequence[Injection], number: int, broker: str) -> list[Injection]:
    return [i for i in injections if (i.row, i.broker) == (number, broker)]


def _row(row: Row, injections: Sequence[Injection]) -> RowReport:
    good = [i for i in injections if i.survived]
    recovery = [i.recovery_s for i in good] or [0.0]
    shares = [i.resent_share for i in good if i.resent_share is not None]
    return RowReport(
        row=row.number,
        fault=row.fault,
        how=row.how,
        holds=row.holds,
        model_bytes=row.setup.model_bytes,
        injections=len(injections),
        survived=len(good),
        recovery_median_s=statistics.median(recovery),
        recovery_worst_s=max(recovery),
        resent_median=statistics.median(shares) if shares else None,
        resent_worst=max(shares) if shares else None,
        verdict="survived" if injections and len(good) == len(injections) else "NOT SURVIVED",
        each=tuple(injections),
    )


def table_of(report: Report) -> "Table":
    """Draw the report."""
    from rich.table import Table

    table = Table(title="Faults")
    for name in ("#", "fault", "injections", "survived", "recovery, median", "worst", "sent again", "worst", "verdict"):
        table.add_column(name, justify="left" if name in {"fault", "verdict"} else "right")
    named = [(str(row.row), row) for row in report.rows]
    named += [(f"{broker.broker} {row.row}", row) for broker in report.brokers for row in broker.rows]
    for name, row in named:
        table.add_row(
            name,
            row.fault,
            str(row.injections),
            str(row.survived),
            f"{row.recovery_median_s:.2f} s",
            f"{row.recovery_worst_s:.2f} s",
            _percent(row.resent_median),
            _percent(row.resent_worst),
            row.verdict,
        )
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
