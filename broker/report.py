"""Shows what a check found: a table for people, one document for programs."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from broker.findings import Findings, Queue
from broker.verdict import Verdict
from common.command import table

if TYPE_CHECKING:
    from rich.console import Console


def document(findings: Findings, verdict: Verdict) -> dict[str, Any]:
    """Return the findings, field by field, and the verdict as plain values."""
    return {
        "runs": verdict.runs,
        "failures": verdict.failures,
        "notes": verdict.notes,
        "settings": verdict.settings,
        **asdict(findings),
    }


def show(findings: Findings, verdict: Verdict, console: "Console") -> None:
    """Print the table, what to know, what to set, and the verdict last."""
    console.print(table(("question", "answer"), rows(findings), title=f"broker at {findings.address}"))
    for note in verdict.notes:
        console.print(f"note: {note}")
    for key, value in verdict.settings.items():
        console.print(f"set: {key}: {value}", style="yellow")
    for failure in verdict.failures:
        console.print(f"missing: {failure}", style="red")
    if verdict.runs:
        how = " with the settings above" if verdict.settings else ""
        console.print(f"fedpi runs on it{how} (checked in {findings.seconds} s)", style="green")
    else:
        console.print("fedpi does not run on it", style="red")


def rows(found: Findings) -> list[tuple[str, str]]:
    """Put each finding in words."""
    said, limit, flow = found.announced, found.packet_limit, found.throughput
    limit_is = "at least " if limit.beyond == "not tried" else ""
    will = f"after {found.will.seconds:.2f} s, {'' if found.will.is_retained else 'not '}retained"
    return [
        ("protocols on this port", "MQTT " + ", ".join(said.protocols)),
        ("announced packet limit", _or_none(said.packet_bytes, " bytes")),
        ("announced receive maximum", _or_none(said.receive_maximum)),
        ("announced keepalive", _or_none(said.keepalive_s, " s")),
        ("announced retain, wildcards", f"{_yes(said.has_retain)}, {_yes(said.has_wildcards)}"),
        ("largest packet seen to arrive", f"{limit_is}{limit.arrived_bytes} bytes (beyond: {limit.beyond})"),
        ("QoS 1 round trip", f"{found.round_trip.milliseconds} ms" if found.round_trip.is_delivered else "fails"),
        ("throughput", f"{flow.megabytes_s} MB/s in chunks of {flow.chunk_bytes} bytes"),
        ("'+' wildcard", "delivers" if found.reaches_wildcard else "does not deliver"),
        ("retained, exact topic", "delivers" if found.retained.is_delivered else "does not deliver"),
        ("will after a lost connection", will if found.will.is_delivered else "does not come"),
        ("queue for a slow subscriber", _queue(found.slow)),
        ("queue for an absent one", _queue(found.offline)),
    ]


def _or_none(value: int | None, unit: str = "") -> str:
    return "none" if value is None else f"{value}{unit}"


def _yes(value: bool | None) -> str:
    return "not said" if value is None else "yes" if value else "no"


def _queue(queue: Queue) -> str:
    order = "in order" if queue.is_ordered else "out of order"
    return f"{queue.arrived} of {queue.sent} messages, {order}"
