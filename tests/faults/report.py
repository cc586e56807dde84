"""What `runs/faults/report.json` holds, and the table that people read."""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from tests.faults.row import Row

if TYPE_CHECKING:
    from rich.table import Table


class Injection(msgspec.Struct, frozen=True, kw_only=True):
    """One fault, injected once. `resent_share`: chunk bytes sent again, as a share of the model."""

    row: int
    seed: int
    survived: bool
    recovery_s: float
    resent_share: float | None
    note: str
    seconds: float
    replay: str


class Undisturbed(msgspec.Struct, frozen=True, kw_only=True):
    """The first round of a federation, without a fault: blob ids of its base, of what it made, of the oracle's."""

    folder: str
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


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The whole run."""

    seconds: float
    all_survived: bool
    undisturbed: tuple[Undisturbed, ...]
    rows: tuple[RowReport, ...]


def summarise(
    rows: Sequence[Row], injections: Sequence[Injection], undisturbed: Sequence[Undisturbed], seconds: float
) -> Report:
    """Put the rows that were run together."""
    reports = tuple(_row(row, [i for i in injections if i.row == row.number]) for row in rows)
    return Report(
        seconds=seconds,
        all_survived=all(report.verdict == "survived" for report in reports),
        undisturbed=tuple(undisturbed),
        rows=reports,
    )


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
    for row in report.rows:
        table.add_row(
            str(row.row),
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
