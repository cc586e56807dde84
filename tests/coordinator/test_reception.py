"""What arrives at the coordinator."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from common import topics
from common.errors import PeerError
from common.messages import (
    Accept,
    Bye,
    CheckIn,
    Chunk,
    Decline,
    DeviceStatus,
    Failed,
    Hello,
    Offer,
    Receipt,
    Ref,
    Refusal,
    StoryEvent,
    Takeover,
    Want,
    encode,
    encode_story,
)
from common.topics import Kind, topic
from coordinator import events
from coordinator import reception as reception_module
from coordinator.reception import Arrival, Reception
from coordinator.store import Store
from tests.coordinator.conftest import Play

ROUND = 5
OFFER = Offer(
    device="pi",
    round=ROUND,
    base="0" * 64,
    update=Ref(id="1" * 64, head_bytes=100, size=8, chunk_bytes=4096),
    num_examples=3,
)


@pytest.fixture
def reception(tmp_path: Path) -> Reception:
    return Reception("demo", Store(tmp_path / "journal.sqlite", create=True))


def say(reception: Reception, message: Any, device: str = "pi", round_: int = ROUND) -> Arrival:
    return arrive(reception, topic(Kind.DEV_SAY, "demo", device=device), encode(message), round_)


def arrive(reception: Reception, name: str, payload: bytes, round_: int = ROUND) -> Arrival:
    return reception.admit(topics.parse(name), payload, round_)


def state(reception: Reception, status: DeviceStatus, device: str = "pi") -> Arrival:
    return arrive(reception, topic(Kind.DEV_STATUS, "demo", device=device), encode_story(status))


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (CheckIn(device="pi", round=ROUND), events.CheckedIn(device="pi")),
        (Accept(device="pi", round=ROUND), events.Accepted(device="pi")),
        (Decline(device="pi", round=ROUND, reason="hot"), events.Declined(device="pi", reason="hot")),
        (Failed(device="pi", round=ROUND, reason="oops"), events.Failed(device="pi", reason="oops")),
        (OFFER, events.Offered(offer=OFFER)),
        (Bye(device="pi", nonce="0"), events.Left(device="pi")),
        (Hello(device="pi", nonce="0"), None),
    ],
)
def test_what_a_device_says_becomes_an_event(reception: Reception, message: Any, event: object) -> None:
    assert say(reception, message) == Arrival(event=event)  # type: ignore[arg-type]  # each is one


def test_a_wish_and_a_chunk_are_handed_on(reception: Reception) -> None:
    want = Want(device="pi", blob="0" * 64, chunks=b"\x01")
    chunk = Chunk(blob="0" * 64, index=0, data=b"x")
    assert say(reception, want) == Arrival(want=want)
    assert arrive(reception, topic(Kind.DEV_UP, "demo", device="pi"), encode(chunk)) == Arrival(chunk=chunk)


@pytest.mark.parametrize("message", [CheckIn(device="pi", round=4), Accept(device="pi", round=6)])
def test_what_concerns_another_round_is_refused(reception: Reception, message: Any) -> None:
    with pytest.raises(PeerError, match="the open one is 5"):
        say(reception, message)
    with pytest.raises(PeerError, match="the open one is none"):
        say(reception, message, round_=0)


def test_an_offer_of_another_round_passes_since_it_gets_an_answer(reception: Reception) -> None:
    assert say(reception, OFFER, round_=0).event == events.Offered(offer=OFFER)


def test_a_device_that_speaks_as_another_is_refused(reception: Reception) -> None:
    with pytest.raises(PeerError, match="other speaks as pi"):
        say(reception, OFFER, device="other")
    with pytest.raises(PeerError, match="other states the status of pi"):
        state(reception, DeviceStatus(device="pi", nonce="0", state="online"), device="other")


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        (topic(Kind.DEV_SAY, "other", device="pi"), encode(OFFER)),
        (topic(Kind.DEV_CMD, "demo", device="pi"), encode(OFFER)),
        (topic(Kind.COORD_STATUS, "demo"), b"{}"),
        (topic(Kind.DEV_EVENT, "demo", device="pi"), encode_story(StoryEvent(event="e", text="t"))),
        (topic(Kind.DEV_SAY, "demo", device="pi"), encode(Receipt(device="pi", round=5, update="0" * 64))),
        (topic(Kind.DEV_UP, "demo", device="pi"), encode(OFFER)),
        (topic(Kind.DEV_STATUS, "demo", device="pi"), encode(OFFER)),
        (topic(Kind.DEV_STATUS, "demo", device="pi"), b""),
    ],
)
def test_a_message_in_the_wrong_place_is_refused(reception: Reception, name: str, payload: bytes) -> None:
    with pytest.raises(PeerError):
        arrive(reception, name, payload)


def test_who_is_here(reception: Reception) -> None:
    say(reception, Hello(device="pi", nonce="1"))
    state(reception, DeviceStatus(device="other", nonce="a", state="online"), device="other")
    assert reception.present == {"pi", "other"}
    say(reception, Bye(device="pi", nonce="1"))
    gone = state(reception, DeviceStatus(device="other", nonce="a", state="offline"), device="other")
    assert gone == Arrival(is_offline=True)
    assert reception.present == frozenset()


def test_the_late_will_and_the_late_goodbye_of_an_old_connection_change_nothing(reception: Reception) -> None:
    say(reception, Hello(device="pi", nonce="1"))
    say(reception, Hello(device="pi", nonce="2"))
    assert state(reception, DeviceStatus(device="pi", nonce="1", state="offline")) == Arrival()
    assert say(reception, Bye(device="pi", nonce="1")) == Arrival()
    assert reception.present == {"pi"}


def test_who_comes_under_a_name_in_use_is_the_newer_one_and_the_older_one_is_told(reception: Reception) -> None:
    assert say(reception, Hello(device="pi", nonce="1")) == Arrival()
    assert say(reception, Hello(device="pi", nonce="1")) == Arrival()
    told = Arrival(takeover=Takeover(device="pi", nonce="1", by="2"))
    assert say(reception, Hello(device="pi", nonce="2")) == told
    state(reception, DeviceStatus(device="pi", nonce="1", state="online"))
    assert say(reception, Bye(device="pi", nonce="1")) == Arrival()
    assert say(reception, Bye(device="pi", nonce="2")) == Arrival(event=events.Left(device="pi"))
    assert say(reception, Hello(device="pi", nonce="3")) == Arrival()


def test_a_connection_that_only_its_status_tells_of_takes_over_too(reception: Reception) -> None:
    say(reception, Hello(device="pi", nonce="1"))
    told = Arrival(takeover=Takeover(device="pi", nonce="1", by="2"))
    assert state(reception, DeviceStatus(device="pi", nonce="2", state="online")) == told
    assert state(reception, DeviceStatus(device="pi", nonce="2", state="online")) == Arrival()


def test_an_older_process_that_missed_its_takeover_is_told_again(
    reception: Reception, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("coordinator.reception.time.monotonic", lambda: now[0])
    older = DeviceStatus(device="pi", nonce="1", state="online")
    for nonce in "12":
        say(reception, Hello(device="pi", nonce=nonce))
    now[0] += reception_module.REMIND_S - 0.1  # what it says of itself may have been on its way
    assert state(reception, older) == Arrival()
    now[0] += 0.1
    assert state(reception, older) == Arrival(takeover=Takeover(device="pi", nonce="1", by="2"))
    assert state(reception, older) == Arrival()
    assert state(reception, DeviceStatus(device="pi", nonce="1", state="offline")) == Arrival()
    say(reception, Bye(device="pi", nonce="2"))
    now[0] += reception_module.REMIND_S
    assert state(reception, older) == Arrival()


def test_who_offers_again_what_a_round_counted_gets_its_receipt(journal: Store, play: Play) -> None:
    play(5, reported={"pi": {}, "other": {}})
    (entry, _) = journal.ledger(5)
    reception = Reception("demo", journal)
    ref = replace(OFFER.update, id=entry.update_id)
    counted = replace(OFFER, device=entry.device, update=ref)
    assert reception.late(counted) == Receipt(device=entry.device, round=5, update=entry.update_id)
    for offer in (replace(counted, round=4), replace(counted, device="third"), replace(OFFER, device=entry.device)):
        refusal = reception.late(offer)
        assert isinstance(refusal, Refusal)
        assert refusal.reason == f"round {offer.round} is closed; this update came too late"


def test_what_devices_say_of_themselves_is_written_down(tmp_path: Path) -> None:
    store = Store(tmp_path / "journal.sqlite", create=True)
    reception = Reception("demo", store)
    state(reception, DeviceStatus(device="pi", nonce="1", state="online", doing="training", release="r1"))
    state(reception, DeviceStatus(device="pi", nonce="1", state="online", doing="waiting", release="r1"))
    reception.flush()
    (row,) = store.devices()
    assert (row.device, row.state, row.doing, row.release) == ("pi", "online", "waiting", "r1")


def test_what_is_refused_is_counted(reception: Reception) -> None:
    for _ in range(5):
        reception.refuse("fedpi/1/demo", PeerError("no"))
    assert reception.refused == 5


kinds = st.sampled_from([Kind.DEV_SAY, Kind.DEV_UP, Kind.DEV_STATUS, Kind.DEV_EVENT, Kind.COORD_ROUND])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kinds, st.binary(max_size=100) | st.sampled_from([encode(OFFER), b"{}", b"[]", b"null"]), st.integers(0, 6))
def test_any_bytes_on_any_topic_are_an_arrival_or_refused(
    reception: Reception, kind: Kind, payload: bytes, round_: int
) -> None:
    with contextlib.suppress(PeerError):
        arrive(reception, topic(kind, "demo", device="pi"), payload, round_)
    reception.flush()
