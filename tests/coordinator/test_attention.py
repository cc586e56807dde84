"""What needs a person, and that the operator's handbook explains each kind of it."""

import re
from pathlib import Path

import pytest

from common.chronicle import MemberProgress, RoundMembers
from common.health import Health
from common.messages import CoordinatorStatus, DeviceStatus, Ref, ReleaseStatus, RoundStatus
from coordinator.attention import Notice, ailments, attention
from coordinator.watching import Picture, Watched, take

OPERATIONS = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
MODEL = Ref(id="ab" * 32, head_bytes=10, size=100, chunk_bytes=4096)
BAD: dict[Notice, Health] = {
    Notice.SITTING_OUT: Health(unfit="too hot; its limit is 80 °C"),
    Notice.UNDER_VOLTAGE: Health(flags=("was-under-voltage",)),
    Notice.THROTTLED: Health(flags=("frequency-capped",)),
    Notice.HOT: Health(temperature_c=75.0),
    Notice.LOW_MEMORY: Health(memory_free_bytes=10**6),
    Notice.LOW_DISK: Health(disk_free_bytes=10**6),
    Notice.CARD_WORN: Health(card_life_used=0.8, card_state="normal"),
    Notice.CLOCK: Health(clock_synchronised=False),
}


def status(device: str = "rpi1", **more: object) -> DeviceStatus:
    plain = {"nonce": "aa", "state": "online", "doing": "waiting for a round", **more}
    return DeviceStatus(device=device, **plain)  # type: ignore[arg-type]  # its own fields


def notices(*documents: Watched) -> list[tuple[Notice, str]]:
    picture = Picture("brain")
    for document in documents:
        picture = take(picture, document, 0.0)
    return [(found.notice, found.device) for found in attention(picture)]


@pytest.mark.parametrize(("notice", "health"), BAD.items())
def test_each_ailment_is_noticed_and_nothing_else_with_it(notice: Notice, health: Health) -> None:
    assert [found for found, _ in ailments(health)] == [notice]


@pytest.mark.parametrize(
    "health",
    [
        Health(),
        Health(
            temperature_c=74.9,
            flags=("was-throttled", "temperature-limited"),
            memory_free_bytes=10**9,
            disk_free_bytes=10**9,
            load=9.0,
            card_life_used=0.7,
            card_state="normal",
            clock_synchronised=True,
        ),
    ],
)
def test_a_healthy_device_needs_nobody(health: Health) -> None:
    assert list(ailments(health)) == []


def test_what_stops_rounds_comes_first() -> None:
    void = RoundStatus(epoch="ab", round=3, phase="abandoned", text="Round 3 is void: nobody came.")
    gone = CoordinatorStatus(federation="brain", epoch="ab", state="offline", text="The coordinator is gone.")
    hot = status("rpi2", health=BAD[Notice.HOT])
    assert notices(hot, status("rpi1", state="offline"), void, gone) == [
        (Notice.COORDINATOR_OFFLINE, ""),
        (Notice.ROUND_VOID, ""),
        (Notice.OFFLINE, "rpi1"),
        (Notice.HOT, "rpi2"),
    ]


def test_a_device_that_is_offline_is_blamed_for_the_round_that_waits_for_it_only() -> None:
    waits = RoundStatus(epoch="ab", round=3, phase="reporting", invited=2, reported=1)
    told = (MemberProgress(device="rpi1", standing="accepted"), MemberProgress(device="rpi2", standing="reported"))
    picture = Picture("brain")
    gone = [status(device, state="offline") for device in ("rpi1", "rpi2")]
    documents: list[Watched] = [waits, RoundMembers(round=3, members=told), *gone]
    for document in documents:
        picture = take(picture, document, 0.0)
    assert [found.text for found in attention(picture)] == ["offline, and round 3 waits for it", "offline"]


def test_a_release_that_is_not_the_newest_is_noticed_and_none_is_not() -> None:
    newest = ReleaseStatus(release="r2", model=MODEL, labels=("no", "yes"), round=2)
    assert notices(newest, status("rpi1", release="r1"), status("rpi2", release="r2"), status("rpi3")) == [
        (Notice.OLD_RELEASE, "rpi1")
    ]


def test_messages_that_break_the_protocol_are_noticed_on_both_sides() -> None:
    here = CoordinatorStatus(federation="brain", epoch="ab", state="online", refused=2)
    assert notices(here, status(refused=1)) == [(Notice.REFUSED_MESSAGES, ""), (Notice.REFUSED_MESSAGES, "rpi1")]


def test_a_certificate_that_ends_is_noticed() -> None:
    ends = status(text="rpi1 is waiting for a round. The certificate ends in 12 days: renew it.")
    assert notices(ends) == [(Notice.CERTIFICATE, "rpi1")]


def test_the_handbook_explains_every_notice() -> None:
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", OPERATIONS.split("## Warnings", 1)[1], re.MULTILINE))
    assert explained == {notice.value for notice in Notice}
