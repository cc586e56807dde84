"""A session whose connection, or whose coordinator, is a new one: what nobody answered is said again at once."""

import pytest

from common.messages import CheckIn, Offer, Ref
from device.session import WAITS, Reconnected, Said, Session, Speak, Stage, Task, Tick, Waits, Wanted, resume, step

REF = Ref(id="1" * 64, head_bytes=100, size=8, chunk_bytes=4096)
OFFER = Offer(device="pi", round=5, base="0" * 64, update=REF, num_examples=3)


def silent_for_long(stage: Stage, says: Said) -> Session:
    """A session that has said the same so often that it says it every `repeat_max_s` only."""
    offer = says if isinstance(says, Offer) else None
    return Session("pi", None, Task(5, stage, None, offer, says, 1000.0 + WAITS.repeat_max_s, WAITS.repeat_max_s))


@pytest.mark.parametrize(("stage", "says"), [(Stage.JOINING, CheckIn(device="pi", round=5)), (Stage.OFFERING, OFFER)])
def test_a_new_connection_says_it_at_once_and_begins_its_patience_anew(stage: Stage, says: Said) -> None:
    session, commands = step(silent_for_long(stage, says), Reconnected(), 1000.0)
    assert commands == (Speak(says),)
    assert step(session, Tick(), 1000.0 + WAITS.repeat_s - 0.1)[1] == ()
    assert step(session, Tick(), 1000.0 + WAITS.repeat_s)[1] == (Speak(says),)


def test_who_has_nothing_to_say_stays_silent() -> None:
    quiet = Session("pi", None, Task(5, Stage.TRAINING))
    assert step(quiet, Reconnected(), 1000.0) == (quiet, ())


def test_a_kept_offer_is_said_to_a_coordinator_that_started_anew() -> None:
    session, commands = step(resume("pi", OFFER, 0.0), Tick(), 0.0)
    assert commands == (Speak(OFFER),)
    assert step(session, Reconnected(), 1.0)[1] == (Speak(OFFER),)


def test_the_configuration_says_when_what_nobody_answers_is_said_again() -> None:
    session, now, told = resume("pi", OFFER, 0.0, Waits(repeat_s=1.0, repeat_max_s=4.0, wanted_s=2.5)), 0.0, []
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
