"""A round told to people."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.messages import DeviceStatus, Ref, RoundStatus, StoryEvent, decode_story, encode_story
from coordinator.round_state import Member, Phase, Round, Standing
from coordinator.story import changes, idle_status, mean_metrics, round_status
from tests.rounds import open_round, plan_of

BASE = Ref(id="0" * 64, head_bytes=100, size=8, chunk_bytes=4096)
RESULT = msgspec.structs.replace(BASE, id="9" * 64)


def member(device: str, standing: Standing, **more: object) -> Member:
    return msgspec.convert({"device": device, "standing": standing, **more}, Member)


def round_of(*members: Member, phase: Phase = Phase.REPORTING, **more: object) -> Round:
    made = open_round(plan_of(7), goal=3, minimum=2, selection_s=1, deadline_s=1)
    return msgspec.structs.replace(made, phase=phase, members=members, **more)


A, B = member("a", Standing.REPORTED, num_examples=30), member("b", Standing.INVITED)


@pytest.mark.parametrize(
    ("phase", "more", "text"),
    [
        (Phase.SELECTING, {}, "Round 7 is open: 2 of 3 devices have checked in."),
        (Phase.REPORTING, {}, "Round 7 is training: 1 of 2 devices have reported."),
        (Phase.AGGREGATING, {}, "Round 7 is averaging 1 updates."),
        (Phase.COMMITTED, {"result": RESULT}, "Round 7 made a new global model from 1 of 2 devices."),
        (Phase.ABANDONED, {"reason": "too few"}, "Round 7 is void: too few."),
    ],
)
def test_every_phase_is_told_in_a_sentence(phase: Phase, more: dict[str, object], text: str) -> None:
    status = round_status(round_of(A, B, phase=phase, **more), "e0")
    assert status.text == text
    assert status.phase == phase.value
    assert status.model == (RESULT if more.get("result") else BASE)
    assert status.invited == (0 if phase is Phase.SELECTING else 2)
    assert status.reported == 1
    assert decode_story(encode_story(status), RoundStatus) == status


def test_a_long_reason_still_fits_its_message() -> None:
    status = round_status(round_of(phase=Phase.ABANDONED, reason="x" * 5000), "e0")
    assert decode_story(encode_story(status), RoundStatus) == status
    (event,) = changes(round_of(B), round_of(member("b", Standing.FAILED, reason="y" * 500)))
    assert decode_story(encode_story(event), StoryEvent) == event


def test_between_rounds() -> None:
    assert idle_status("e0", 7, RESULT).phase == "idle"
    assert idle_status("e0", 0, None).model is None


@pytest.mark.parametrize(
    ("standing", "event", "text"),
    [
        (Standing.REPORTED, "update-counted", "Round 7: b delivered its update of 0 examples."),
        (Standing.DECLINED, "declined", "Round 7: b cannot take part: why."),
        (Standing.FAILED, "training-failed", "Round 7: training failed on b: why."),
        (Standing.REFUSED, "update-refused", "Round 7: the update of b does not count: why."),
        (Standing.MISSING, "missing", "Round 7: b why."),
        (Standing.UNABLE, "unable", "Round 7: b cannot take part: it why."),
    ],
)
def test_what_becomes_of_a_device_is_told_once(standing: Standing, event: str, text: str) -> None:
    after = round_of(A, member("b", standing, reason="why"))
    (told,) = changes(round_of(A, B), after)
    assert (told.event, told.text, told.device, told.round) == (event, text, "b", 7)
    assert changes(after, after) == []


def test_what_is_on_its_way_is_not_told() -> None:
    assert changes(round_of(), round_of(B, member("c", Standing.DELIVERING), member("d", Standing.ACCEPTED))) == []


def test_a_reason_with_braces_is_only_text() -> None:
    (told,) = changes(round_of(B), round_of(member("b", Standing.FAILED, reason="{device} {0} {")))
    assert "{device} {0} {" in told.text


def test_the_mean_of_the_devices_figures_follows_their_examples() -> None:
    members = (
        member("a", Standing.REPORTED, num_examples=30, metrics={"loss": 1.0, "only-a": 5.0}),
        member("b", Standing.REPORTED, num_examples=10, metrics={"loss": 3.0}),
        member("c", Standing.FAILED, num_examples=99, metrics={"loss": 100.0}),
    )
    assert mean_metrics(round_of(*members)) == {"loss": 1.5, "only-a": 5.0}
    assert mean_metrics(round_of(B)) == {}


def test_more_figures_than_a_message_takes_are_left_out() -> None:
    members = [
        member(f"d{n}", Standing.REPORTED, num_examples=1, metrics={f"m{n}-{i}": 1.0 for i in range(64)})
        for n in range(3)
    ]
    event = StoryEvent(event="e", text="t", metrics=mean_metrics(round_of(*members)))
    assert decode_story(encode_story(event), StoryEvent) == event


def test_a_status_is_no_other_document() -> None:
    status = DeviceStatus(device="pi", nonce="0", state="online")
    assert decode_story(encode_story(status), DeviceStatus) == status


STANDINGS = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(Standing))


@given(STANDINGS, STANDINGS)
def test_whoever_comes_or_goes_what_is_told_is_what_changed(old: dict[str, Standing], new: dict[str, Standing]) -> None:
    known = {device: member(device, standing) for device, standing in sorted(old.items())}
    members = [
        known[device] if old.get(device) == standing else member(device, standing)
        for device, standing in sorted(new.items())
    ]
    told = changes(round_of(*known.values()), round_of(*members))
    silent = {Standing.JOINED, Standing.INVITED, Standing.ACCEPTED, Standing.DELIVERING}
    assert [story.device for story in told] == [d for d in sorted(new) if new[d] not in silent and old.get(d) != new[d]]
