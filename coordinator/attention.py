"""What needs a person: one sentence each, of a kind that docs/operations.md explains. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from common import skipped
from common.health import Health
from common.messages import DeviceStatus
from coordinator.watching import Picture
from coordinator.wording import size

HOT_C = 75.0
LOW_MEMORY_BYTES = 200 * 10**6
LOW_DISK_BYTES = 1000 * 10**6
WORN = 0.8


class Notice(StrEnum):
    """Kinds of notices; docs/operations.md says what each means and what to do."""

    COORDINATOR_OFFLINE = "coordinator-offline"
    TWO_COORDINATORS = "two-coordinators"
    ROUND_VOID = "round-void"
    OFFLINE = "offline"
    SITTING_OUT = "sitting-out"
    UNDER_VOLTAGE = "under-voltage"
    THROTTLED = "throttled"
    HOT = "hot"
    LOW_MEMORY = "low-memory"
    LOW_DISK = "low-disk"
    CARD_WORN = "card-worn"
    CLOCK = "clock"
    CERTIFICATE = "certificate"
    SKIPPED_FILES = "skipped-files"
    OLD_RELEASE = "old-release"
    REFUSED_MESSAGES = "refused-messages"


@dataclass(frozen=True)
class Attention:
    """A notice, the device that it is about (none: the coordinator), and a sentence."""

    notice: Notice
    device: str
    text: str


def attention(picture: Picture) -> list[Attention]:
    """Return all that needs a person, what stops rounds first."""
    found = [Attention(notice, "", text) for notice, text in _of_coordinator(picture)]
    for name, device in picture.devices.items():
        found += [Attention(notice, name, text) for notice, text in _of_device(device.status, picture)]
    order = list(Notice)
    return sorted(found, key=lambda a: (order.index(a.notice), a.device))


def ailments(health: Health) -> Iterator[tuple[Notice, str]]:
    """Yield what is wrong with a device's hardware."""
    flags = health.flags or ()
    if health.unfit:
        yield Notice.SITTING_OUT, f"sits rounds out: {health.unfit}"
    if {"under-voltage", "was-under-voltage"} & {*flags}:
        now = "the voltage is too low" if "under-voltage" in flags else "the voltage was too low"
        yield Notice.UNDER_VOLTAGE, f"{now}: a stronger power supply or a shorter cable"
    if {"throttled", "frequency-capped"} & {*flags}:
        yield Notice.THROTTLED, "its firmware slows the processor down"
    if health.temperature_c is not None and health.temperature_c >= HOT_C:
        yield Notice.HOT, f"{health.temperature_c:.0f} °C"
    if health.memory_free_bytes is not None and health.memory_free_bytes < LOW_MEMORY_BYTES:
        yield Notice.LOW_MEMORY, f"{size(health.memory_free_bytes)} of memory are free"
    if health.disk_free_bytes is not None and health.disk_free_bytes < LOW_DISK_BYTES:
        yield Notice.LOW_DISK, f"{size(health.disk_free_bytes)} of disk are free"
    if (health.card_life_used or 0) >= WORN or health.card_state in {"warning", "urgent"}:
        yield Notice.CARD_WORN, "its memory card is nearly worn out: replace it"
    if health.clock_synchronised is False:
        yield Notice.CLOCK, "its clock is not synchronised"


def _of_coordinator(picture: Picture) -> Iterator[tuple[Notice, str]]:
    coordinator, round_ = picture.coordinator, picture.round
    if coordinator is not None and coordinator.state == "offline":
        yield Notice.COORDINATOR_OFFLINE, coordinator.text
    elif coordinator is not None and coordinator.others:
        yield Notice.TWO_COORDINATORS, "two coordinators run: no round is opened until one of them is stopped"
    if coordinator is not None:
        yield from _certificate(coordinator.text)
    if round_ is not None and round_.phase == "abandoned":
        yield Notice.ROUND_VOID, round_.text
    if coordinator is not None and coordinator.refused:
        yield Notice.REFUSED_MESSAGES, f"the coordinator dropped {coordinator.refused} messages that break the protocol"


def _of_device(status: DeviceStatus, picture: Picture) -> Iterator[tuple[Notice, str]]:
    if status.state == "offline":
        yield Notice.OFFLINE, f"offline{_missed(status.device, picture)}"
        return
    if status.health is not None:
        yield from ailments(status.health)
    yield from _certificate(skipped.without(status.text))
    if told := skipped.too_many(status.text):
        yield Notice.SKIPPED_FILES, told
    if picture.release is not None and status.release not in {"", picture.release.release}:
        yield Notice.OLD_RELEASE, f"serves {status.release}, not {picture.release.release}"
    if status.refused:
        yield Notice.REFUSED_MESSAGES, f"dropped {status.refused} messages that break the protocol"


def _certificate(text: str) -> Iterator[tuple[Notice, str]]:
    """Find the sentence that `common.tls` adds to a status when a certificate ends soon."""
    _, found, sentence = text.partition("The certificate ")
    if found:
        yield Notice.CERTIFICATE, found + sentence


def _missed(device: str, picture: Picture) -> str:
    round_, told = picture.round, picture.members
    if round_ is None or round_.phase != "reporting" or told is None or told.round != round_.round:
        return ""
    is_awaited = any(m.device == device and m.standing in _AWAITED for m in told.members)
    return f", and round {round_.round} waits for it" if is_awaited else ""


_AWAITED = frozenset({"invited", "accepted", "delivering"})
