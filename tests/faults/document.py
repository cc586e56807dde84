"""The figures of a campaign as they stand in `docs/faults.md`: written there, so that both agree."""

from collections.abc import Iterator
from pathlib import Path

from tests.faults.report import Report, RowReport
from tests.faults.soak import SETTLED, Soak

BEGIN = {False: "<!-- figures: make faults -->", True: "<!-- figures: make faults SIGNED=1 -->"}
"""By whether messages were signed."""
END = "<!-- end of figures -->"
HEADS = ("#", "fault", "injections", "survived", "recovery, median", "worst", "sent again, median", "worst")


def write(page: Path, report: Report) -> None:
    """Put the figures of `report` between the two marks in `page`. Raises ValueError where there are none."""
    begin = BEGIN[report.is_signed]
    before, _, rest = page.read_text().partition(begin)
    old, _, after = rest.partition(END)
    if not old or not after:
        raise ValueError(f"{page}: no place for the figures; mark it by {begin} and {END}")
    page.write_text("\n\n".join([before + begin, *_paragraphs(report), END + after]))


def _paragraphs(report: Report) -> Iterator[str]:
    count = sum(row.injections for row in report.rows)
    beside = sum(row.injections for broker in report.brokers for row in broker.rows)
    yield (
        f"{count} injections against Mosquitto and {beside} against other brokers in {report.seconds / 60:.0f} minutes"
        f" on 2 cores; {len(report.undisturbed)} undisturbed rounds beside them."
    )
    if report.skipped:
        yield "Not injected: " + "; ".join(report.skipped) + "."
    yield _table([(str(row.row), row) for row in report.rows])
    yield _table([(f"{broker.broker}, {row.row}", row) for broker in report.brokers for row in broker.rows])
    if report.soak is not None:
        yield "### 200 rounds, signed" if report.is_signed else "### 200 rounds"
        yield _told(report.soak)


def _table(rows: list[tuple[str, RowReport]]) -> str:
    lines = [HEADS, ("---",) * len(HEADS), *(_cells(name, row) for name, row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(name: str, row: RowReport) -> tuple[str, ...]:
    return (
        name,
        row.fault,
        str(row.injections),
        str(row.survived) + (f", {row.skipped} skipped" if row.skipped else ""),
        f"{row.recovery_median_s:.1f} s",
        f"{row.recovery_worst_s:.1f} s",
        _percent(row.resent_median),
        _percent(row.resent_worst),
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _told(soak: Soak) -> str:
    heads = ("process", f"MB after {SETTLED}", f"MB after {soak.rounds}", "growth", "threads", "sockets", "files")
    lines = [heads, ("---",) * len(heads)]
    for one in soak.processes:
        first, last = one.first, one.last
        counts = [(first.threads, last.threads), (first.sockets, last.sockets), (first.files, last.files)]
        changes = [f"{before:g}" if before == after else f"{before:g} to {after:g}" for before, after in counts]
        lines.append(
            (one.process, f"{first.memory_mb:.1f}", f"{last.memory_mb:.1f}", f"{one.share:+.1%}", *changes),
        )
    told = (
        f"{soak.rounds} rounds with five devices and a model of 0.4 MB took {soak.seconds:.0f} s; every round's model"
    )
    return f"{told} was the oracle's.\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)
