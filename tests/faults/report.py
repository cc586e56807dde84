"""What `runs/faults/report.json` holds, and the table that people read."""

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from tests.faults.row import Row
from tests.faults.soak import Soak

if TYPE_CHECKING:
    from rich.table import Table

FAILED, MISSING = 70, 69
"""Exit codes: a fault was not survived; one could not be injected here."""
SURVIVED, NOT_SURVIVED = "survived", "NOT SURVIVED"
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
    skipped: str = ""
    """Why it was not made; it is neither survived nor not."""
    is_signed: bool = False
    """Whether coordinator and devices signed."""

    @property
    def sentence(self) -> str:
        """What became of it, and how to see it again."""
        if self.skipped:
            return f"{self.broker} row {self.row} seed {self.seed}: skipped: {self.skipped}"
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
    """A row of the table. Seconds and shares are over the injections that were survived.

    `injections` are those that were made; `skipped` could not be.
    """

    row: int
    fault: str
    how: str
    holds: str
    model_bytes: int
    injections: int
    survived: int
    skipped: int
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
    """Whether every fault was injected and survived, with every broker that was asked for."""
    skipped: tuple[str, ...]
    """What was not injected, and why: a sentence each."""
    undisturbed: tuple[Undisturbed, ...]
    rows: tuple[RowReport, ...]
    brokers: tuple[BrokerReport, ...] = ()
    soak: Soak | None = None
    is_signed: bool = False
    """Whether coordinator and devices signed."""


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
    missing = [*filter(None, matrix.values()), *(i.skipped for i in injections if i.skipped)]
    return Report(
        seconds=seconds,
        all_survived=not missing and all(report.verdict == SURVIVED for report in every),
        skipped=tuple(dict.fromkeys(missing)),
        undisturbed=tuple(undisturbed),
        rows=reports,
        brokers=brokers,
    )


def exit_code(report: Report) -> int:
    """Return 0 where every fault was injected and survived, FAILED or MISSING where not."""
    every = [*report.rows, *(row for broker in report.brokers for row in broker.rows)]
    if any(row.verdict == NOT_SURVIVED for row in every):
        return FAILED
    return MISSING if report.skipped else 0


def _of(injections: Sequence[Injection], number: int, broker: str) -> list[Injection]:
    return [i for i in injections if (i.row, i.broker) == (number, broker)]


def _verdict(made: int, survived: int, skipped: int) -> str:
    if survived < made:
        return NOT_SURVIVED
    if skipped:
        return f"{skipped} of {made + skipped} skipped"
    return SURVIVED if made else NOT_SURVIVED


def _row(row: Row, injections: Sequence[Injection]) -> RowReport:
    made = [i for i in injections if not i.skipped]
    good = [i for i in injections if i.survived]
    recovery = [i.recovery_s for i in good] or [0.0]
    shares = [i.resent_share for i in good if i.resent_share is not None]
    return RowReport(
        row=row.number,
        fault=row.fault,
        how=row.how,
        holds=row.holds,
        model_bytes=row.setup.model_bytes,
        injections=len(made),
        survived=len(good),
        skipped=len(injections) - len(made),
        recovery_median_s=statistics.median(recovery),
        recovery_worst_s=max(recovery),
        resent_median=statistics.median(shares) if shares else None,
        resent_worst=max(shares) if shares else None,
        verdict=_verdict(len(made), len(good), len(injections) - len(made)),
        each=tuple(injections),
    )


def table_of(report: Report) -> "Table":
    """Draw the report."""
    from rich.table import Table

    table = Table(title="Faults, signed" if report.is_signed else "Faults")
    for name in (
        "#",
        "fault",
        "injections",
        "survived",
        "skipped",
        "recovery, median",
        "worst",
        "sent again",
        "worst",
        "verdict",
    ):
        table.add_column(name, justify="left" if name in {"fault", "verdict"} else "right")
    named = [(str(row.row), row) for row in report.rows]
    named += [(f"{broker.broker} {row.row}", row) for broker in report.brokers for row in broker.rows]
    for name, row in named:
        table.add_row(
            name,
            row.fault,
            str(row.injections),
            str(row.survived),
            str(row.skipped or "-"),
            f"{row.recovery_median_s:.2f} s",
            f"{row.recovery_worst_s:.2f} s",
            _percent(row.resent_median),
            _percent(row.resent_worst),
            row.verdict,
        )
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
