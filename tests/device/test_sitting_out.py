"""A device that is not fit to train: what its session says, and what brings it back."""

from dataclasses import replace

import pytest

from common.messages import CheckIn, Decline, Ref, RoundStatus
from common.plan import ModelChoice, RoundPlan
from device.session import Session, Stage, step
from device.session_events import (
    CancelJob,
    Command,
    DropUpdate,
    Event,
    Examined,
    Fetch,
    Fetched,
    Invited,
    Pointed,
    Speak,
    Tick,
)

BASE = Ref(id="0" * 64, head_bytes=100, size=8, chunk_bytes=4096)
INVITED = Invited(RoundPlan(round=5, generation="aa", base=BASE, model=ModelChoice(name="numpy")), "d" * 64)
HOT, FIT = Examined("too hot"), Examined("")
CHECK_IN = Speak(CheckIn(device="pi", round=5, generation="aa"))
DECLINE = Speak(Decline(device="pi", round=5, generation="aa", reason="too hot"))
SITTING_OUT = "sitting rounds out: too hot"


def pointer(phase: str, number: int = 5) -> Pointed:
    return Pointed(RoundStatus(epoch="e0", round=number, generation="aa", phase=phase, model=BASE))  # type: ignore[arg-type]  # one of its phases


def play(*events: Event) -> tuple[Session, list[Command]]:
    """Let a device live through `events`; returns its state, and what the last one led to."""
    session, last = Session("pi"), list[Command]()
    for event in events:
        session, commands = step(session, event, 0.0)
        last = list(commands)
    return session, last


def stage_of(session: Session) -> Stage | None:
    return session.task.stage if session.task else None


def test_a_device_that_is_unfit_declines_a_round_that_opens() -> None:
    session, said = play(HOT, pointer("selecting"))
    assert said == [Fetch(BASE), DECLINE]
    assert session.doing == SITTING_OUT


def test_a_device_that_turns_unfit_takes_its_check_in_back() -> None:
    session, said = play(pointer("selecting"), HOT)
    assert said == [DECLINE]
    assert stage_of(session) is Stage.DECLINED


def test_an_invitation_that_crosses_the_decline_on_its_way_starts_nothing() -> None:
    assert play(pointer("selecting"), HOT, INVITED)[1] == []


def test_a_device_that_turns_unfit_before_it_trains_declines_its_invitation() -> None:
    session, said = play(pointer("selecting"), INVITED, HOT)
    assert said == [DECLINE]
    assert step(session, Fetched(BASE.id), 0.0)[1] == ()


def test_a_training_that_runs_is_not_ended_by_heat() -> None:
    session, said = play(pointer("selecting"), INVITED, Fetched(BASE.id), HOT)
    assert said == []
    assert stage_of(session) is Stage.TRAINING
    assert session.doing == "training, round 5"


def test_a_device_that_is_fit_again_checks_in_while_there_is_time() -> None:
    session, said = play(HOT, pointer("selecting"), FIT)
    assert said == [CHECK_IN]
    assert stage_of(session) is Stage.JOINING


def test_a_round_that_was_declined_and_goes_on_without_the_device_stays_declined() -> None:
    session, said = play(HOT, pointer("selecting"), pointer("reporting"), FIT)
    assert said == []
    assert session.doing == "sitting it out, round 5"
    _, said = play(HOT, pointer("selecting"), pointer("reporting"), FIT, pointer("selecting", 6))
    assert said == [CancelJob(), DropUpdate(), Speak(CheckIn(device="pi", round=6, generation="aa"))]


def test_the_decline_is_repeated_until_the_round_is_over_and_not_for_every_status() -> None:
    session, said = play(HOT, pointer("selecting"), pointer("selecting"))
    assert said == []
    assert step(session, Tick(), 3.0)[1] == (DECLINE,)
    session, _ = step(session, pointer("abandoned"), 4.0)
    assert step(session, Tick(), 1000.0)[1] == ()
    assert session.doing == SITTING_OUT


def test_a_device_that_restarts_unfit_declines_the_round_that_still_counts_on_it() -> None:
    assert play(HOT, pointer("reporting"))[1] == [Fetch(BASE), DECLINE]


@pytest.mark.parametrize("events", [[HOT], [HOT, HOT], [pointer("selecting"), FIT], [FIT]])
def test_an_examination_that_changes_nothing_says_nothing(events: list[Event]) -> None:
    session, _ = play(*events)
    assert step(session, events[-1], 9.0) == (session, ())


def test_what_a_device_says_is_shortened_to_fit_a_message() -> None:
    session, _ = play(pointer("selecting"))
    _, (said,) = step(replace(session), Examined("x" * 600), 0.0)
    assert isinstance(said, Speak)
    assert isinstance(said.message, Decline)
    assert len(said.message.reason) == 500
