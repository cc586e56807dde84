"""The demo's and the benchmark's results, told to a person."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.command import table
from common.learning.evaluation import Evaluation
from coordinator.rehearsal.assessment import Means

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from coordinator.rehearsal.aggregation import Figures as AggregationFigures
    from coordinator.rehearsal.bench import Report as BenchReport
    from coordinator.rehearsal.crowd import Crowd
    from coordinator.rehearsal.demo import Report as DemoReport


def show_demo(report: "DemoReport", folder: Path, out: "Console") -> None:
    """Print what the demo found, for a newcomer."""
    out.print()
    if report.is_synthetic:
        out.print("These images are drawn, not scanned: the figures say that the system works, nothing about patients.")
    before, alone, after = report.before.together, report.alone.together, report.after.together
    rows = [
        ("the initial model, before the rounds", *_figures(before)),
        (f"each site alone (mean of {len(report.alone.sites)})", *_means(alone, after)),
        ("the federation, after the rounds", *_figures(after)),
    ]
    columns = ("model", "accuracy", "AUC", "loss", "missed", "false alarms")
    title = f"Three ways to train, measured on the {after.count} images that no training ever saw"
    out.print(table(columns, rows, title=title))
    if before.auc is not None and alone.auc is not None and after.auc is not None:
        out.print(
            f"AUC of the federation: {after.auc - before.auc:+.3f} against the initial model, "
            f"{after.auc - alone.auc:+.3f} against a site alone."
        )
    out.print(
        f"One image more or less right moves the accuracy by {100 / max(after.count, 1):.1f} points; "
        "report.json has each site's figures."
    )
    out.print()
    serving = report.serving
    agree = (
        "the same label as Keras on every one"
        if serving.label_disagreements == 0
        else f"another label than Keras on {serving.label_disagreements}"
    )
    out.print(
        f"Release {report.release['release']} answered {serving.count} images over MQTT: {agree}, probabilities within "
        f"{serving.max_difference:.1g}; {serving.p50_ms:.1f} ms on the device (95 %: {serving.p95_ms:.1f} ms)."
    )
    out.print(f"All of it took {report.seconds:.0f} s. Look at {folder}/rounds.png, roc.png and report.json;")
    out.print(f"the model is {folder}/release/model.tflite.")


def show_bench(report: "BenchReport", folder: Path, out: "Console") -> None:
    """Print the benchmark's table."""
    rows = [
        (
            m.devices,
            f"{m.seconds:.2f}",
            f"{m.bare_seconds:.2f}",
            f"{m.ratio:.2f}",
            f"{m.coordinator_mb:.0f}",
            f"{m.bare_coordinator_mb:.0f}",
            f"{m.device_mb:.0f}",
            f"{m.idle_device_mb:.0f}",
            f"{m.published_share:.4f}",
        )
        for m in report.results
    ]
    columns = (
        "devices",
        "s/round",
        "bare s/round",
        "ratio",
        "coordinator MB",
        "bare MB",
        "device MB",
        "idle device MB",
        "published / model",
    )
    if rows:
        out.print(table(columns, rows, title=f"{report.model_bytes / 1e6:.2f} MB model in {report.tensors} tensors"))
    if report.crowds:
        out.print(_crowds(report.crowds))
    out.print(f"report: {folder / 'report.json'}")


def _crowds(crowds: "Sequence[Crowd]") -> "Table":
    rows = [
        (
            c.devices,
            f"{c.seconds:.2f}",
            f"{c.cpu_seconds:.2f}",
            f"{c.ratio:.2f}",
            f"{c.delayed_s:.2f}",
            f"{c.coordinator_mb:.0f}",
            f"{c.written_kb:.1f}",
            f"{c.syncs:.1f}",
            c.syncs_in_series,
            c.verdict,
        )
        for c in crowds
    ]
    columns = (
        "devices",
        "s/round",
        "CPU s/round",
        "ratio",
        "s without a core",
        "coordinator MB",
        "kB written a device",
        "syncs a round",
        "in series at a commit",
        "",
    )
    return table(columns, rows, title="The coordinator alone: light devices in one process, a model of 10 kB")


def show_aggregation(found: "Sequence[AggregationFigures]", out: "Console") -> None:
    """Print how long the strategies took."""
    rows = [
        (
            f.strategy,
            f"{f.cached_s:.2f}",
            f"{f.cached_s / f.cached_reading_s:.1f}",
            f"{f.disk_s:.2f}",
            f"{f.disk_s / f.disk_reading_s:.1f}",
            f"{f.peak_mb:.0f}",
        )
        for f in found
    ]
    out.print(table(("strategy", "s, cached", "x reading", "s, from disk", "x reading", "peak MB"), rows))


def _figures(e: Evaluation) -> tuple[str, ...]:
    return (
        _number(e.accuracy),
        _number(e.auc),
        _number(e.loss),
        f"{e.false_negatives} of {e.false_negatives + e.true_positives}",
        f"{e.false_positives} of {e.false_positives + e.true_negatives}",
    )


def _means(e: Means, of: Evaluation) -> tuple[str, ...]:
    return (
        _number(e.accuracy),
        _number(e.auc),
        _number(e.loss),
        f"{e.missed:g} of {of.false_negatives + of.true_positives}",
        f"{e.false_alarms:g} of {of.false_positives + of.true_negatives}",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
