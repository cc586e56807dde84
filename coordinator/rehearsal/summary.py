"""The demo's and the benchmark's results, told to a person."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.command import table
from common.learning.evaluation import Evaluation

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
    rows = []
    for when, assessment in (("before the rounds", report.before), ("after the rounds", report.after)):
        for site, figures in assessment.sites.items():
            rows.append((when, site, *_figures(figures)))
        rows.append((when, "all", *_figures(assessment.together)))
    columns = ("global model", "site", "unseen images", "accuracy", "AUC", "loss", "missed", "false alarms")
    out.print(table(columns, rows, title="The global model on images that no training ever saw"))
    out.print(
        f"{report.after.together.count} images are few: one image more or less right moves the accuracy by "
        f"{100 / max(report.after.together.count, 1):.1f} points."
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
            f"{c.coordinator_mb:.0f}",
            f"{c.written_mb:.1f}",
            c.verdict,
        )
        for c in crowds
    ]
    columns = ("devices", "s/round", "CPU s/round", "ratio", "coordinator MB", "MB written", "")
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
        str(e.count),
        _number(e.accuracy),
        _number(e.auc),
        _number(e.loss),
        f"{e.false_negatives} of {e.false_negatives + e.true_positives}",
        f"{e.false_positives} of {e.false_positives + e.true_negatives}",
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
