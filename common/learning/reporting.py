"""What the offline commands found, for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.command import table
from common.learning.comparison import Comparison, Row
from common.learning.intervals import Interval
from common.learning.offline import TrainingReport

if TYPE_CHECKING:
    from rich.console import Console

    from common.config import DataConfig
    from common.learning.seam import Site
    from common.learning.variants import Export

SHOWN = 5
FEW = 400
"""Below so many images an accuracy of .85 is known to no better than 3.5 points either way."""


def show_training(report: TrainingReport, out: "Console") -> None:
    """Say what was trained and where it is."""
    show_skipped(report.skipped, out)
    figures = ", ".join(f"{name} {value:.3f}" for name, value in report.kept.items())
    out.print(f"{len(report.epochs)} epochs on {report.num_examples} images in {report.seconds:.1f} s: {figures}")
    if (unseen := report.unseen) is not None:
        auc = "" if unseen.auc is None else f", AUC {unseen.auc:.3f}"
        out.print(f"on {unseen.count} unseen images ({report.measured_on}): accuracy {_number(unseen.accuracy)}{auc}")
    else:
        out.print("measured on no unseen image: none are held back; name some by --unseen", style="yellow")
    out.print(report.out)
    if report.picture:
        out.print(report.picture)


def show_skipped(skipped: Sequence[str], out: "Console") -> None:
    """Name the first files that are left out, and say how many there are."""
    for sentence in skipped[:SHOWN]:
        out.print(f"left out: {sentence}", style="yellow")
    if len(skipped) > SHOWN:
        out.print(f"left out: {len(skipped) - SHOWN} more, {len(skipped)} in all", style="yellow")


def show_measured(site: str, data: "DataConfig", loaded: "Site", out: "Console") -> None:
    """Say on which images a model is measured, and what of them is left out."""
    count, source = len(loaded.unseen), data.labels or data.images
    if data.unseen is None:
        out.print(f"{site}: measured on all {count} images of {source}; the figures hold if the model never saw them")
    else:
        out.print(f"{site}: measured on {count} images held back, {data.unseen}")
    show_skipped(loaded.skipped, out)


def show_comparison(found: Comparison, pictures: Sequence[Path], out: "Console") -> None:
    """Print a row for each site and model, what changed, and how far to trust it."""
    columns = ("site", "images", "model", "accuracy", "AUC", "sensitivity", "specificity", "F1", "loss")
    out.print(table((*columns, "TN", "FP", "FN", "TP"), [_cells(row) for row in found.rows]))
    for site in dict.fromkeys(row.site for row in found.rows):
        rows = [row for row in found.rows if row.site == site]
        if len(rows) == 2 and rows[0].figures.accuracy is not None and rows[1].figures.accuracy is not None:
            change = 100 * (rows[1].figures.accuracy - rows[0].figures.accuracy)
            out.print(f"{site}: accuracy {change:+.1f} points from {rows[0].model} to {rows[1].model}")
    few = min(row.figures.count for row in found.rows)
    if few < FEW:
        out.print(
            f"{few} images are few: one more or less right is {100 / few:.1f} points. In brackets: 95 % intervals "
            "(Wilson's for shares, bootstrap for the others); a difference within them may be chance."
        )
    for path in pictures:
        out.print(str(path))


def show_variants(found: "Export", out: "Console") -> None:
    """Print a row for each variant."""
    columns = (
        "variant",
        "size",
        "of float32",
        "largest difference",
        "other labels",
        "accuracy",
        "ms",
        "file or reason",
    )
    rows: list[tuple[object, ...]] = []
    for v in found.variants:
        if v.reason:
            rows.append((v.variant, "-", "-", "-", "-", "-", "-", v.reason))
            continue
        share = "-" if v.size_share is None else f"{100 * v.size_share:.0f} %"
        figures = (f"{v.max_difference:.2g}", v.other_labels, _number(v.accuracy), f"{v.milliseconds:.2f}")
        rows.append((v.variant, f"{v.size / 1e3:,.0f} kB", share, *map(str, figures), v.file))
    out.print(table(columns, rows))
    out.print(
        f"Against Keras (accuracy {_number(found.keras_accuracy)}) on {found.images} images; milliseconds: median of "
        f"an image on this machine by {found.interpreter}, {found.threads} threads."
    )


def _cells(row: Row) -> tuple[object, ...]:
    e, i = row.figures, row.intervals
    return (
        row.site,
        e.count,
        row.model,
        _with(e.accuracy, i.accuracy),
        _with(e.auc, i.auc),
        _with(e.sensitivity, i.sensitivity),
        _with(e.specificity, i.specificity),
        _with(e.f1, i.f1),
        _with(e.loss, i.loss),
        e.true_negatives,
        e.false_positives,
        e.false_negatives,
        e.true_positives,
    )


def _with(value: float | None, interval: Interval | None) -> str:
    if value is None or interval is None:
        return "-"
    return f"{value:.3f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
