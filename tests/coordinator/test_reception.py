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
    Result,
    StoryEvent,
    Takeover,
    Want,
    encode,
    encode_story,
)
from common.plan import RoundPlan
from common.topics import Kind, topic
from coordinator import events
from coordinator import reception as reception_module
from coordinator.reception import Arrival, Reception
from coordinator.store import Store
from tests.coordinator.conftest import Play
from tests.rounds import GENERATION, plan_of

ROUND = 5
PLAN = plan_of(ROUND)
OF_ROUND: dict[str, Any] = {"device": "pi", "round": ROUND, "generation": GENERATION}
OFFER = Offer(
    device="pi",
    round=ROUND,
    generation=GENERATION,
    plan="0" * 64,
    update=Ref(id="1" * 64, head_bytes=100, size=8, chunk_bytes=4096),
    num_examples=3,
)


@pytest.fixture
def reception(tmp_path: Path) -> Reception:
    return Reception("demo", Store(tmp_path / "journal.sqlite", create=True))


def say(reception: Reception, message: Any, device: str = "pi", open_: RoundPlan | None = PLAN) -> Arrival:
    return arrive(reception, topic(Kind.DEV_SAY, "demo", device=device), encode(message), open_)


def arrive(reception: Reception, name: str, payload: bytes, open_: RoundPlan | None = PLAN) -> Arrival:
    return reception.admit(topics.parse(name), payload, open_)


def state(reception: Reception, status: DeviceStatus, device: str = "pi") -> Arrival:
    return arrive(reception, topic(Kind.DEV_STATUS, "demo", device=device), encode_story(status))


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (CheckIn(**OF_ROUND), events.CheckedIn(device="pi", abilities=frozenset({"model:tiny"}))),
        (Accept(**OF_ROUND), events.Accepted(device="pi")),
        (Decline(**OF_ROUND, reason="hot"), events.Declined(device="pi", reason="hot")),
        (Failed(**OF_ROUND, reason="oops"), events.Failed(device="pi", reason="oops")),
        (OFFER, events.Offered(offer=OFFER)),
        (Bye(device="pi", nonce="0"), events.Left(device="pi")),
        (Hello(device="pi", nonce="0"), None),
    ],
)
def test_what_a_device_says_becomes_an_event(reception: Reception, message: Any, event: object) -> None:
    say(reception, Hello(device="pi", nonce="0", abilities=("model:tiny",)))
    assert say(reception, message) == Arrival(event=event)  # type: ignore[arg-type]  # each is one


def test_a_check_in_waits_for_the_hello_that_names_the_abilities(reception: Reception) -> None:
    assert say(reception, CheckIn(**OF_ROUND)) == Arrival()


def test_a_wish_and_a_chunk_are_handed_on(reception: Reception) -> None:
    want = Want(device="pi", blob="0" * 64, chunks=b"\x01")
    chunk = Chunk(blob="0" * 64, index=0, data=b"x")
    assert say(reception, want) == Arrival(want=want)
    assert arrive(reception, topic(Kind.DEV_UP, "demo", device="pi"), encode(chunk)) == Arrival(chunk=chunk)


@pytest.mark.parametrize(("number", "generation"), [(4, GENERATION), (6, GENERATION), (ROUND, "bb")])
def test_what_concerns_another_round_or_generation_is_refused(
    reception: Reception, number: int, generation: str
) -> None:
    of: dict[str, Any] = {"device": "pi", "round": number, "generation": generation}
    for message in (Accept(**of), Failed(reason="x", **of)):
        with pytest.raises(PeerError, match="the open one is 5"):
            say(reception, message)
        with pytest.raises(PeerError, match="the open one is none"):
            say(reception, message, open_=None)


@pytest.mark.parametrize("message", [OFFER, CheckIn(**OF_ROUND)])
def test_who_asks_for_a_round_that_this_coordinator_never_had_is_told_so(reception: Reception, message: Any) -> None:
    for open_ in (None, plan_of(ROUND, generation="bb")):
        told = say(reception, message, open_=open_).late
        assert told is not None
        assert (told.round, told.generation, told.counted) == (ROUND, GENERATION, False)
        assert told.reason == "round 5 of generation aa is not open and not in the ledger here"


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
        (topic(Kind.DEV_SAY, "demo", device="pi"), encode(Receipt(**OF_ROUND, update="0" * 64))),
        (topic(Kind.DEV_UP, "demo", device="pi"), encode(OFFER)),
        (topic(Kind.DEV_STATUS, "demo", device="pi"), encode(OFFER)),
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


def test_who_asks_for_a_round_that_is_over_is_told_what_became_of_the_update(journal: Store, play: Play) -> None:
    play(5, reported={"pi": {}, "other": {}}, failed={"third": "no memory"})
    play(6, reported={"pi": {}}, failed={"other": "no memory"})
    reception = Reception("demo", journal)
    for number, device, counted, reason in (
        (5, "pi", True, ""),
        (5, "third", False, "no memory"),
        (6, "pi", False, "the round is void: 1 of 2 invited devices reported; 2 are needed"),
    ):
        of: dict[str, Any] = {"device": device, "round": number, "generation": GENERATION}
        expected = Result(**of, counted=counted, reason=reason)
        for message in (CheckIn(**of), replace(OFFER, device=device, round=number)):
            assert say(reception, message, device=device, open_=None).late == expected
    stranger = say(reception, replace(OFFER, device="fourth"), device="fourth", open_=None).late
    assert stranger is not None
    assert not stranger.counted


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
        reception.refuse("fedpi/2/demo", PeerError("no"))
    assert reception.refused == 5


kinds = st.sampled_from([Kind.DEV_SAY, Kind.DEV_UP, Kind.DEV_STATUS, Kind.DEV_EVENT, Kind.COORD_ROUND])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds,
    st.binary(max_size=100) | st.sampled_from([encode(OFFER), b"{}", b"[]", b"null"]),
    st.sampled_from([None, PLAN]),
)
def test_any_bytes_on_any_topic_are_an_arrival_or_refused(
    reception: Reception, kind: Kind, payload: bytes, open_: RoundPlan | None
) -> None:
    with contextlib.suppress(PeerError):
        arrive(reception, topic(kind, "demo", device="pi"), payload, open_)
    reception.flush()
