"""A session whose connection, or whose coordinator, is a new one: what nobody answered is said again at once."""

import pytest

from common.messages import CheckIn, Offer, Ref
from device.session import WAITS, Session, Stage, Task, Waits, resume, step
from device.session_events import Reconnected, Said, Speak, Tick, Wanted

REF = Ref(id="1" * 64, head_bytes=100, size=8, chunk_bytes=4096)
OFFER = Offer(device="pi", round=5, generation="aa", plan="0" * 64, update=REF, num_examples=3)
CHECK_IN = CheckIn(device="pi", round=5, generation="aa")


def silent_for_long(stage: Stage, says: Said) -> Session:
    """A session that has said the same so often that it says it every `repeat_max_s` only."""
    offer = says if isinstance(says, Offer) else None
    return Session(
        "pi",
        None,
        Task(
            5, "aa", stage, offer=offer, says=says, repeat_at=1000.0 + WAITS.repeat_max_s, repeat_s=WAITS.repeat_max_s
        ),
    )


@pytest.mark.parametrize(("stage", "says"), [(Stage.JOINING, CHECK_IN), (Stage.OFFERING, OFFER)])
def test_a_new_connection_says_it_at_once_and_begins_its_patience_anew(stage: Stage, says: Said) -> None:
    session, commands = step(silent_for_long(stage, says), Reconnected(), 1000.0)
    assert commands == (Speak(says),)
    assert step(session, Tick(), 1000.0 + WAITS.repeat_s - 0.1)[1] == ()
    assert step(session, Tick(), 1000.0 + WAITS.repeat_s)[1] == (Speak(says),)


def test_who_has_nothing_to_say_stays_silent() -> None:
    quiet = Session("pi", None, Task(5, "aa", Stage.TRAINING))
    assert step(quiet, Reconnected(), 1000.0) == (quiet, ())


def test_a_kept_offer_is_said_to_a_coordinator_that_started_anew() -> None:
    session, commands = step(resume(Session("pi"), OFFER, 0.0), Tick(), 0.0)
    assert commands == (Speak(OFFER),)
    assert step(session, Reconnected(), 1.0)[1] == (Speak(OFFER),)


def test_the_configuration_says_when_what_nobody_answers_is_said_again() -> None:
    session, now, told = resume(Session("pi", waits=Waits(1.0, 4.0, 2.5)), OFFER, 0.0), 0.0, []
    for tenth in range(100):
        now = tenth / 10
        session, commands = step(session, Tick(), now)
        told += [now] * len(commands)
    assert told == [0.0, 2.0, 6.0]
    session, _ = step(session, Reconnected(), now)
    assert step(session, Tick(), now + 1.0)[1] == (Speak(OFFER),)
    session, _ = step(session, Wanted(REF.id), now)
    assert step(session, Tick(), now + 2.4)[1] == ()
    assert step(session, Tick(), now + 2.5)[1] == (Speak(OFFER),)
