"""What a round answers: to who was not invited or lacks an ability, and to everybody at the end."""

from common.messages import Refusal
from common.plan import ModelChoice
from coordinator.events import Aggregated, CheckedIn, Delivered, Failed, Offered, Tell
from coordinator.round_state import Phase, Standing
from tests.coordinator.test_round import (
    RESULT,
    UPDATES,
    Run,
    invitation,
    offer,
    receipt,
    reported,
    reporting,
    resolved,
)
from tests.rounds import open_round, plan_of


def test_a_lost_invitation_is_said_again() -> None:
    run = reporting()
    (command,) = run.take(CheckedIn(device="a"))
    assert command == Tell(message=invitation("a"))


def test_a_lost_receipt_is_said_again_without_bytes() -> None:
    run = reporting()
    run.take(*reported("a"))
    told = Tell(message=receipt("a"))
    assert run.take(Offered(offer=offer("a"))) == [told]
    assert run.take(CheckedIn(device="a")) == [told]
    run.take(*reported("b"), *reported("c"))
    assert run.phase() is Phase.AGGREGATING
    assert run.take(Offered(offer=offer("a"))) == [told]


def test_another_update_of_a_device_that_has_reported_is_refused() -> None:
    run = reporting()
    run.take(*reported("a"))
    before = run.state
    (command,) = run.take(Offered(offer=offer("a", update=UPDATES[1])))
    assert isinstance(command, Tell)
    assert isinstance(command.message, Refusal)
    assert "another update" in command.message.reason
    run.take(Delivered(device="a", update=UPDATES[1].id))
    assert run.state == before


def test_who_was_not_invited_is_told_that_the_round_began_without_it() -> None:
    run = reporting()
    for event in (CheckedIn(device="late"), Offered(offer=offer("late"))):
        (command,) = run.take(event)
        assert isinstance(command, Tell)
        assert isinstance(command.message, Refusal)
        assert command.message.reason == "round 5 began without this device"
    assert run.standing("late") is None


def test_a_device_that_lacks_an_ability_is_not_invited_and_the_ledger_says_why() -> None:
    plan = plan_of(model=ModelChoice(name="tiny"))
    run = Run(open_round(plan, goal=2, minimum=2))
    (command,) = run.take(CheckedIn(device="old"))
    assert isinstance(command, Tell)
    assert isinstance(command.message, Refusal)
    assert "lacks model:tiny" in command.message.reason
    assert run.take(CheckedIn(device="old")) == [command]
    assert run.take(CheckedIn(device="a", abilities=frozenset({"model:tiny", "more"}))) == []
    commands = run.take(CheckedIn(device="b", abilities=frozenset({"model:tiny"})))
    invited = [c.message.device for c in commands if isinstance(c, Tell)]
    assert invited == ["a", "b"]
    member = run.state.member("old")
    assert member is not None
    assert (member.standing, "lacks model:tiny" in member.reason) == (Standing.UNABLE, True)


def test_everybody_is_told_whether_the_update_counts_in_the_end() -> None:
    run = reporting()
    run.take(*reported("a"), *reported("b"), Failed(device="c", reason="no memory"))
    commands = run.take(Aggregated(result=RESULT))
    assert commands[:-1] == [Tell(message=m) for m in (resolved("a"), resolved("b"), resolved("c", "no memory"))]


def test_whose_update_came_and_whose_round_is_void_is_told_why() -> None:
    run = reporting()
    commands = run.take(*reported("a"), Failed(device="b", reason="x"), Failed(device="c", reason="y"))
    reason = "the round is void: 1 of 3 invited devices reported; 2 are needed"
    assert Tell(message=resolved("a", reason)) in commands
