"""The live view: messages into a picture, the picture onto a screen, and both from a real broker."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from common.chronicle import MemberProgress, PastRound, PastRounds, RoundMembers
from common.config import BrokerConfig
from common.errors import PeerError
from common.health import Health
from common.inbox import Inbox
from common.link import Link, Up
from common.messages import (
    CoordinatorStatus,
    DeviceStatus,
    Metrics,
    Ref,
    ReleaseStatus,
    RoundStatus,
    StoryEvent,
    encode_story,
)
from common.topics import TABLE, Kind, topic
from coordinator.cli import main
from coordinator.screen import draw
from coordinator.watching import KEPT_EVENTS, Picture, Watched, news, read, take

MODEL = Ref(id="ab" * 32, head_bytes=10, size=100, chunk_bytes=4096)
HERE = CoordinatorStatus(federation="brain", epoch="ab", state="online", text="The coordinator is here.")
TRAINING = RoundStatus(epoch="ab", round=3, phase="reporting", invited=1, text="Round 3 is training.")
RELEASE = ReleaseStatus(release="r2-1a2b3c4d", model=MODEL, labels=("no", "yes"), round=2, text="Serve it.")


def status(device: str = "rpi1", doing: str = "training, round 3", **more: Any) -> DeviceStatus:
    plain = {"nonce": "aa", "state": "online", "text": f"{device} is {doing}.", **more}
    return DeviceStatus(device=device, doing=doing, **plain)


def progress(fraction: float, device: str = "rpi1", metrics: Metrics | None = None) -> StoryEvent:
    text = f"{device} has trained {fraction:.0%}."
    return StoryEvent(event="training", text=text, device=device, fraction=fraction, metrics=metrics or {})


def picture_of(*documents: Watched) -> Picture:
    picture = Picture("brain")
    for at, document in enumerate(documents):
        picture = take(picture, document, float(at))
    return picture


# ---- the picture ----------------------------------------------------------------------------


def test_documents_find_their_places() -> None:
    picture = picture_of(HERE, TRAINING, RELEASE, status("rpi2"), status("rpi1"))
    assert (picture.coordinator, picture.round, picture.release) == (HERE, TRAINING, RELEASE)
    assert list(picture.devices) == ["rpi1", "rpi2"]


def test_training_fills_a_bar_until_the_device_does_something_else() -> None:
    picture = picture_of(status(), progress(0.5))
    assert picture.devices["rpi1"].trained == 0.5
    assert take(picture, status(refused=3), 9.0).devices["rpi1"].trained == 0.5
    assert take(picture, status(doing="delivering its update, round 3"), 9.0).devices["rpi1"].trained is None


def test_progress_of_a_device_that_is_not_here_yet_changes_no_device() -> None:
    assert picture_of(progress(0.5, "rpi9")).devices == {}


def test_late_will_of_an_old_connection_is_no_news() -> None:
    picture = picture_of(status(nonce="bb"))
    will = status(nonce="aa", state="offline", text="The connection broke.")
    assert news(picture, will) == ""
    assert take(picture, will, 9.0) == picture


def test_will_of_this_connection_is_news() -> None:
    will = status(state="offline", text="The connection broke.")
    picture = take(picture_of(status(), progress(0.5)), will, 9.0)
    assert picture.devices["rpi1"].status.state == "offline"
    assert picture.devices["rpi1"].trained is None
    assert picture.events[-1] == (9.0, "The connection broke.")


@pytest.mark.parametrize("document", [HERE, TRAINING, RELEASE, status()])
def test_heartbeat_is_no_news(document: Watched) -> None:
    picture = picture_of(document)
    assert news(picture, document) == ""
    assert take(picture, document, 9.0) == picture


def test_what_a_device_line_shows_is_no_event_but_news() -> None:
    picture = picture_of(status())
    for document in (progress(0.5), status(doing="delivering its update, round 3")):
        assert news(picture, document)
        assert take(picture, document, 9.0).events == picture.events


def test_event_carries_its_figures() -> None:
    event = StoryEvent(event="round-metrics", text="Round 3: mean.", metrics={"global_auc": 0.95, "loss": 0.5})
    assert picture_of(event).events == ((0.0, "Round 3: mean. global_auc 0.95, loss 0.5"),)


def test_events_are_kept_to_a_limit() -> None:
    events = [StoryEvent(event="missing", text=f"event {number}") for number in range(KEPT_EVENTS + 5)]
    kept = picture_of(*events).events
    assert (len(kept), kept[0][1], kept[-1][1]) == (KEPT_EVENTS, "event 5", f"event {KEPT_EVENTS + 4}")


# ---- what breaks the protocol ---------------------------------------------------------------


def test_story_is_read_by_its_topic() -> None:
    assert read(topic(Kind.COORD_ROUND, "brain"), encode_story(TRAINING), "brain") == TRAINING
    assert read(topic(Kind.DEV_STATUS, "brain", device="rpi1"), encode_story(status()), "brain") == status()


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        (topic(Kind.COORD_ROUND, "brain"), b""),
        (topic(Kind.COORD_ROUND, "brain"), encode_story(status())),
        (topic(Kind.COORD_ROUND, "lungs"), encode_story(TRAINING)),
        (topic(Kind.DEV_STATUS, "brain", device="rpi2"), encode_story(status("rpi1"))),
        (topic(Kind.DEV_EVENT, "brain", device="rpi2"), encode_story(progress(0.5, "rpi1"))),
        (topic(Kind.DEV_SAY, "brain", device="rpi1"), b"\x80"),
        ("fedpi/2/brain/coord/weather", b"{}"),
        ("", b"{}"),
    ],
)
def test_what_breaks_the_protocol_is_refused(name: str, payload: bytes) -> None:
    with pytest.raises(PeerError):
        read(name, payload, "brain")


NAMES = st.sampled_from([row.pattern.format(federation="brain", device="rpi1", blob="ab") for row in TABLE])


@given(NAMES | st.text(), st.binary() | st.recursive(st.text(), st.lists).map(msgspec.json.encode))
def test_any_message_is_read_or_refused(name: str, payload: bytes) -> None:
    try:
        document = read(name, payload, "brain")
    except PeerError:
        return
    take(Picture("brain"), document, 0.0)


# ---- the screen -----------------------------------------------------------------------------


def drawn(picture: Picture, rows: int = 24) -> list[str]:
    out = StringIO()
    Console(file=out, width=80, height=rows, force_terminal=True, color_system=None).print(draw(picture, rows, 80))
    return out.getvalue().splitlines()


def test_screen_shows_the_round_and_a_line_per_device() -> None:
    gone = status("rpi2", state="offline", text="The connection broke.", release="r1-00000000")
    lines = drawn(picture_of(HERE, TRAINING, RELEASE, status(), progress(0.5), gone))
    text = "\n".join(lines)
    assert "coordinator online" in lines[0]
    assert "release r2-1a2b3c4d" in lines[0]
    assert lines[1].startswith("Round 3 is training.")
    [first] = [line for line in lines if line.startswith("rpi1")]
    assert "training" in first
    assert "━" in first
    [second] = [line for line in lines if line.startswith("rpi2")]
    assert "offline" in second
    assert "⚠ rpi2: offline" in text
    assert "malformed" not in text


def test_screen_shows_how_far_each_device_is_and_how_the_last_rounds_went() -> None:
    delivering = MemberProgress(
        device="rpi1", standing="delivering", examples=48, update_bytes=2_000_000, received_bytes=1_000_000, seconds=9.1
    )
    health = Health(temperature_c=56.2, memory_free_bytes=10**9, disk_free_bytes=2 * 10**9, flags=("throttled",))
    rounds = [
        PastRound(round=n, phase="committed", invited=2, reported=2, closed=1, seconds=n, metrics={"loss": 3.0 - n})
        for n in (1, 2)
    ]
    void = PastRound(round=3, phase="abandoned", invited=2, reported=1, closed=1, seconds=4, reason="too few")
    lines = drawn(
        picture_of(
            status("rpi0", doing="waiting for a round"),
            status(health=health),
            RoundMembers(round=4, members=(delivering,)),
            PastRounds(rounds=(*rounds, void)),
        )
    )
    assert [line.split()[0] for line in lines[3:5]] == ["rpi1", "rpi0"], "who is waited for comes first"
    assert lines[3].split() == ["rpi1", "delivering", "━━━━", "1.0", "MB", "48", "9.1", "56", "1.0", "GB", "2.0", "GB"]
    [trend] = [line for line in lines if "loss" in line and "▁" in line]
    assert trend.startswith("loss █▁ 1 · seconds ▁█ 2")
    [last] = [line for line in lines if "void" in line]
    assert last.split() == ["3", "void", "1", "of", "2", "4.0", "s", "↓0", "bytes", "↑0", "bytes", "too", "few"]
    assert any("slows the processor down" in line for line in lines)


@pytest.mark.parametrize("rows", [24, 50])
def test_screen_holds_any_number_of_devices_and_events(rows: int) -> None:
    fleet = [status(f"rpi{number:03d}", doing="busy " * 50, release="r" * 100) for number in range(200)]
    lines = drawn(picture_of(HERE, msgspec.structs.replace(TRAINING, text="Round 3 is long. " * 20), *fleet), rows)
    assert len(lines) <= rows
    assert max(map(len, lines)) <= 80
    shown = sum(line.startswith("rpi") for line in lines)
    assert any(f"and {200 - shown} devices more" in line for line in lines)


def test_screen_before_the_first_message_tells_of_the_connection() -> None:
    picture = replace(Picture("brain"), connection="no connection to 127.0.0.1:1: refused", malformed=2)
    text = " ".join(" ".join(drawn(picture)).split())
    assert "No round was heard of yet." in text
    assert "no connection to 127.0.0.1:1: refused" in text
    assert "2 malformed messages dropped" in text


def test_words_of_a_device_cannot_steer_the_terminal() -> None:
    evil = status(doing="\x1b[2J\x07", release="\x1b]0;title\x07")
    event = StoryEvent(event="missing", text="\x1b[31mred", device="rpi1")
    assert not any(
        "\x1b[2J" in line or "\x1b]0" in line or "\x1b[31m" in line for line in drawn(picture_of(evil, event))
    )


# ---- over a broker --------------------------------------------------------------------------


def watch(config: Path, *flags: str) -> Result:
    return CliRunner().invoke(main, ["watch", "--config", str(config), *flags])


@pytest.fixture
def connect(tmp_path: Path) -> Callable[[BrokerConfig, str], Path]:
    def connect(broker: BrokerConfig, federation: str) -> Path:
        path = tmp_path / "watch.yaml"
        plain = {
            "federation": federation,
            "state": str(tmp_path),
            "model": {"name": "numpy"},
            "broker": {"port": broker.port},
        }
        path.write_text(yaml.safe_dump(plain))
        return path

    return connect


def publish(broker: BrokerConfig, messages: dict[str, bytes]) -> None:
    """Publish retained messages, and return once the broker has them."""
    inbox = Inbox()
    link = Link("test", "fedpi-test-watching", broker, inbox)
    link.start()
    while not isinstance(inbox.get(5.0), Up):
        pass
    for name, payload in messages.items():
        link.publish(name, payload, retain=True)
    link.drain(5.0)
    link.stop()


def test_watch_streams_documents_and_counts_nonsense(
    mosquitto: BrokerConfig, connect: Callable[[BrokerConfig, str], Path]
) -> None:
    federation = "watch-json"
    status_topic, event_topic = (topic(kind, federation, device="rpi1") for kind in (Kind.DEV_STATUS, Kind.DEV_EVENT))
    messages = {
        topic(Kind.COORD_ROUND, federation): encode_story(TRAINING),
        status_topic: encode_story(status()),
        event_topic: b"\xff nonsense",
    }
    publish(mosquitto, messages)
    config = connect(mosquitto, federation)

    result = watch(config, "--json", "--seconds", "0.7")
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["topic"] for line in lines} == {topic(Kind.COORD_ROUND, federation), status_topic}
    [document] = [line["document"] for line in lines if line["topic"] == status_topic]
    assert msgspec.convert(document, DeviceStatus) == status()

    result = watch(config, "--seconds", "0.7")
    sentences = {line.partition(" ")[2] for line in result.stdout.splitlines()}
    assert sentences == {"Broker: connected.", "Round 3 is training.", "rpi1 is training, round 3."}


def test_watch_without_a_broker_ends_with_the_reason(
    free_port: int, connect: Callable[[BrokerConfig, str], Path]
) -> None:
    started = time.monotonic()
    result = watch(connect(BrokerConfig(port=free_port), "brain"), "--seconds", "0.4")
    assert result.exit_code == 69
    assert "the broker was not reached within 0.4 s" in result.stderr
    assert "Connection refused" in result.stderr
    assert time.monotonic() - started < 5
