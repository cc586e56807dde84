"""Judges the findings: will fedpi run on this broker, and with which settings. Pure."""

from dataclasses import dataclass

from broker.findings import Findings
from common.config import TransferConfig
from common.limits import PACKET_LEAST, PACKET_OVERHEAD

CHUNK_BYTES, CREDIT_CHUNKS = TransferConfig().chunk_bytes, TransferConfig().credit_chunks
"""What a configuration that says nothing of them uses."""


@dataclass(frozen=True)
class Verdict:
    """`failures` keep fedpi from running; `settings` are keys of the configuration of coordinator and devices."""

    failures: tuple[str, ...]
    notes: tuple[str, ...]
    settings: dict[str, int]

    @property
    def runs(self) -> bool:
        """Whether fedpi will run on this broker."""
        return not self.failures


def judge(findings: Findings) -> Verdict:
    """Hold the findings against what the protocol needs."""
    settings: dict[str, int] = {}
    notes = [*_limit_notes(findings, settings), *_queue_notes(findings, settings), *_habit_notes(findings)]
    return Verdict(tuple(_failures(findings)), tuple(notes), settings)


def _failures(found: Findings) -> list[str]:
    checks = (
        (
            found.round_trip.is_delivered and found.announced.maximum_qos != 0,
            "a QoS 1 publish does not come back: the broker lacks QoS 1, or this user may not hold the topics",
        ),
        (found.retained.is_delivered, "a retained message does not reach a new subscriber of its exact topic"),
        (found.will.is_delivered, "the will of a lost connection does not come"),
        (found.will.is_retained or not found.will.is_delivered, "the will of a lost connection is not retained"),
        (found.reaches_wildcard, "a subscription with '+' in the place of the device does not get every device"),
        (
            found.packet_limit.arrived_bytes >= PACKET_LEAST,
            f"packets of {found.packet_limit.arrived_bytes} bytes are the largest that arrive; "
            f"{PACKET_LEAST} are needed",
        ),
    )
    return [text for is_met, text in checks if not is_met]


def _limit_notes(found: Findings, settings: dict[str, int]) -> list[str]:
    limit, announced = found.packet_limit, found.announced.packet_bytes
    notes = []
    if limit.beyond != "not tried" and limit.arrived_bytes >= PACKET_LEAST:
        settings["broker.packet_limit_bytes"] = limit.arrived_bytes
        says = f"announces {announced}" if announced else "announces no limit"
        notes.append(f"packets over {limit.arrived_bytes} bytes: {limit.beyond}; yet the broker {says}")
    if limit.arrived_bytes < CHUNK_BYTES + PACKET_OVERHEAD:
        notes.append("chunks will be smaller than the usual 128 KiB: transfers cost more messages")
    return notes


def _queue_notes(found: Findings, settings: dict[str, int]) -> list[str]:
    notes = []
    if found.slow.arrived < min(found.slow.sent, 2 * CREDIT_CHUNKS):
        settings["transfer.credit_chunks"] = max(found.slow.arrived // 2, 2)
    for what, queue in (("slow", found.slow), ("absent", found.offline)):
        if queue.arrived < queue.sent:
            notes.append(
                f"of {queue.sent} acknowledged messages {queue.arrived} reached a subscriber who was {what}; "
                "transfers repair such losses, a longer queue in the broker avoids them"
            )
    if not (found.slow.is_ordered and found.offline.is_ordered):
        notes.append("messages can overtake each other; fedpi does not mind")
    return notes


def _habit_notes(found: Findings) -> list[str]:
    announced, notes = found.announced, []
    if "5" in set(announced.tried) - set(announced.protocols):
        notes.append("no MQTT 5 here: fedpi speaks 3.1.1; 'broker.protocol: 3.1.1' saves it the first attempt")
    if found.retained.is_repeated:
        notes.append("each new subscriber makes the others get retained messages again; fedpi does not mind")
    if found.throughput.arrived < found.throughput.sent:
        notes.append(f"only {found.throughput.arrived} of {found.throughput.sent} chunks arrived in time")
    return notes
