"""A round as a state machine: short examples of its deep states."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import pytest

from common import plan as plans
from common.messages import Invite, Offer, Receipt, Ref, Refusal, Result
from coordinator.events import (
    Accepted,
    Advanced,
    Aggregate,
    Aggregated,
    Announce,
    Cancelled,
    CheckedIn,
    Collect,
    Command,
    Declined,
    Delivered,
    Event,
    Failed,
    Left,
    Offered,
    Rejected,
    Tell,
    Tick,
)
from coordinator.options import RoundOptions
from coordinator.round import deadline, step
from coordinator.round_state import OPEN, Phase, Round, Standing
from tests.rounds import GENERATION, digest, open_round, plan_of

DEVICES = ("a", "b", "c")


def ref(digit: str, size: int = 8) -> Ref:
    return Ref(id=digit * 64, head_bytes=100, size=size, chunk_bytes=4096)


RESULT = ref("9")
UPDATES = (ref("1"), ref("2"))
PLAN = digest()


def offer(device: str, *, update: Ref = UPDATES[0], plan: str = PLAN, examples: int = 3) -> Offer:
    return Offer(
        device=device,
        round=5,
        generation=GENERATION,
        plan=plan,
        update=update,
        num_examples=examples,
        metrics={"loss": 0.5},
    )


def new(*, goal: int = 3, minimum: int = 2, selection_s: float = 100.0) -> Round:
    return open_round(
        goal=goal, minimum=minimum, selection_s=selection_s, deadline_s=1000.0, grace_s=30.0, max_examples=100
    )


@dataclass
class Run:
    """A round under way, with all that it commanded."""

    state: Round = field(default_factory=new)
    now: float = 0.0
    said: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.said = [Announce()]

    def take(self, *events: Event, after_s: float = 0.0) -> list[Command]:
        """Let time pass, then the events come; returns what the last one led to."""
        self.now += after_s
        last: tuple[Command, ...] = ()
        for event in events:
            self.state, last = step(self.state, event, self.now)
            self.said.extend(last)
        return list(last)

    def phase(self) -> Phase:
        return self.state.phase

    def standing(self, device: str) -> Standing | None:
        member = self.state.member(device)
        return member.standing if member else None


def invitation(device: str) -> Invite:
    return Invite(device=device, round=5, generation=GENERATION, plan=plans.write(plan_of()))


def receipt(device: str) -> Receipt:
    return Receipt(device=device, round=5, generation=GENERATION, update=UPDATES[0].id)


def resolved(device: str, reason: str = "") -> Result:
    return Result(device=device, round=5, generation=GENERATION, counted=not reason, reason=reason)


def joined(*devices: str) -> list[Event]:
    return [CheckedIn(device=device) for device in devices]


def reported(device: str, update: Ref = UPDATES[0]) -> list[Event]:
    return [Offered(offer=offer(device, update=update)), Delivered(device=device, update=update.id)]


def reporting(devices: Sequence[str] = DEVICES, minimum: int = 2) -> Run:
    run = Run(new(goal=len(devices), minimum=minimum))
    run.take(*joined(*devices))
    assert run.phase() is Phase.REPORTING
    return run


# ---- selecting --------------------------------------------------------------------


def test_the_round_begins_when_enough_devices_have_checked_in() -> None:
    run = Run()
    run.take(*joined("c", "a"))
    assert run.phase() is Phase.SELECTING
    commands = run.take(CheckedIn(device="b"))
    assert run.phase() is Phase.REPORTING
    invited = [c.message.device for c in commands if isinstance(c, Tell) and isinstance(c.message, Invite)]
    assert invited == ["a", "b", "c"]
    assert commands[0] == Announce()
    message = next(c.message for c in commands if isinstance(c, Tell))
    assert message == invitation("a")
    assert plans.read(invitation("a").plan) == plan_of()


def test_the_minimum_is_enough_once_the_selection_is_over() -> None:
    run = Run()
    run.take(*joined("a", "b"))
    run.take(Tick(), after_s=99.9)
    assert run.phase() is Phase.SELECTING
    run.take(Tick(), after_s=0.1)
    assert run.phase() is Phase.REPORTING
    assert deadline(run.state) == 1100.0


def test_too_few_devices_and_the_round_is_void() -> None:
    run = Run()
    run.take(*joined("a"))
    run.take(Tick(), after_s=100.0)
    assert run.phase() is Phase.ABANDONED
    assert run.state.reason == "1 devices checked in within 100 s; 2 are needed"


def test_a_device_that_leaves_before_the_invitation_is_not_counted() -> None:
    run = Run()
    run.take(*joined("a", "b"), Left(device="a"))
    assert run.standing("a") is None
    run.take(*joined("a", "c"))
    assert run.phase() is Phase.REPORTING


def test_a_device_that_leaves_after_the_invitation_may_come_back() -> None:
    run = reporting()
    run.take(Left(device="a"))
    assert run.standing("a") is Standing.INVITED


# ---- reporting --------------------------------------------------------------------


def test_a_round_in_which_all_report() -> None:
    run = reporting()
    for device in DEVICES:
        run.take(Accepted(device=device))
        assert run.standing(device) is Standing.ACCEPTED
        assert run.take(Offered(offer=offer(device))) == [Collect(offer=offer(device))]
        assert run.standing(device) is Standing.DELIVERING
        commands = run.take(Delivered(device=device, update=UPDATES[0].id))
        assert commands[0] == Tell(message=receipt(device))
    assert commands[1:] == [Announce(), Aggregate()]
    assert run.phase() is Phase.AGGREGATING
    assert run.take(Aggregated(result=RESULT)) == [*(Tell(message=resolved(device)) for device in DEVICES), Announce()]
    assert (run.phase(), run.state.result) == (Phase.COMMITTED, RESULT)
    assert [(m.num_examples, m.metrics) for m in run.state.reported] == [(3, {"loss": 0.5})] * 3


def test_a_device_that_offers_one_update_after_the_other_is_refused() -> None:
    run = reporting()
    for said in [offer("a", update=ref(f"{number:x}")) for number in range(RoundOptions().max_offers)]:
        assert [run.take(Offered(offer=said)) for _ in range(2)] == [[Collect(offer=said)]] * 2
    run.take(Offered(offer=offer("a", update=msgspec.structs.replace(RESULT, id="ab" * 32))))
    reason = f"{RoundOptions().max_offers + 1} different updates in one round are too many"
    assert (run.standing("a"), run.state.members[0].reason) == (Standing.REFUSED, reason)


def test_going_back_to_an_earlier_update_is_neither_another_one_nor_progress() -> None:
    run = reporting()
    for _ in range(2 * RoundOptions().max_offers):
        for update in UPDATES:
            said = offer("a", update=update)
            assert run.take(Offered(offer=said)) == [Collect(offer=said)]
            run.now += 1.0
    (member,) = [m for m in run.state.members if m.device == "a"]
    assert (member.standing, member.offers) == (Standing.DELIVERING, 2)
    assert member.advanced_at == run.now - 4 * RoundOptions().max_offers + 1


def test_an_update_that_changed_before_it_came_replaces_the_first() -> None:
    run = reporting()
    run.take(Offered(offer=offer("a")), Offered(offer=offer("a", update=UPDATES[1])))
    run.take(Delivered(device="a", update=UPDATES[0].id))
    assert run.standing("a") is Standing.DELIVERING
    run.take(Delivered(device="a", update=UPDATES[1].id))
    assert run.standing("a") is Standing.REPORTED


def test_what_nobody_offered_does_not_count() -> None:
    run = reporting()
    run.take(Delivered(device="a", update=UPDATES[0].id))
    assert run.standing("a") is Standing.INVITED


@pytest.mark.parametrize(
    "last", [Declined(device="c", reason="too hot"), Failed(device="c", reason="no memory"), *reported("c")[1:]]
)
def test_whoever_will_not_report_frees_the_round(last: Event) -> None:
    run = reporting()
    run.take(*reported("a"), *reported("b"), Offered(offer=offer("c")))
    assert run.phase() is Phase.REPORTING
    assert run.take(last)[-2:] == [Announce(), Aggregate()]
    assert run.phase() is Phase.AGGREGATING


def test_when_nobody_is_left_the_round_is_void_at_once() -> None:
    run = reporting()
    run.take(*reported("a"), Declined(device="b", reason="too hot"), Failed(device="c", reason="no memory"))
    assert run.phase() is Phase.ABANDONED
    assert run.state.reason == "1 of 3 invited devices reported; 2 are needed"
    assert [m.reason for m in run.state.members] == ["", "too hot", "no memory"]


def test_a_device_that_failed_may_still_report() -> None:
    run = reporting()
    run.take(Failed(device="a", reason="no memory"), *reported("a"))
    assert run.standing("a") is Standing.REPORTED


def test_a_refused_update_frees_the_round_and_stays_refused() -> None:
    run = reporting()
    run.take(Offered(offer=offer("a")))
    refusal = Tell(message=Refusal(device="a", round=5, generation=GENERATION, reason="not finite"))
    assert run.take(Rejected(device="a", update=UPDATES[0].id, reason="not finite")) == [refusal]
    assert run.take(Offered(offer=offer("a"))) == [refusal]
    assert run.take(CheckedIn(device="a")) == [refusal]
    run.take(*reported("b"), *reported("c"))
    assert run.phase() is Phase.AGGREGATING


def test_a_late_verdict_on_an_older_update_changes_nothing() -> None:
    run = reporting()
    run.take(Offered(offer=offer("a")), Offered(offer=offer("a", update=UPDATES[1])))
    run.take(Rejected(device="a", update=UPDATES[0].id, reason="not finite"))
    assert run.standing("a") is Standing.DELIVERING


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (offer("a", plan="8" * 64), "was trained by plan"),
        (offer("a", update=ref("3", size=9)), "bytes"),
        (offer("a", examples=101), "examples"),
    ],
)
def test_an_offer_that_cannot_count_is_refused_before_any_byte(wrong: Offer, reason: str) -> None:
    run = reporting()
    (command,) = run.take(Offered(offer=wrong))
    assert isinstance(command, Tell)
    assert isinstance(command.message, Refusal)
    assert reason in command.message.reason
    assert run.standing("a") is Standing.REFUSED


def test_an_offer_that_comes_too_late_is_refused() -> None:
    run = reporting()
    run.take(*reported("a"), *reported("b"))
    run.take(Tick(), after_s=1000.0)
    assert run.phase() is Phase.AGGREGATING
    (command,) = run.take(Offered(offer=offer("c")))
    assert isinstance(command, Tell)
    assert isinstance(command.message, Refusal)
    assert "too late" in command.message.reason
    run.take(Aggregated(result=RESULT))
    assert run.standing("c") is Standing.MISSING
    missing = run.state.member("c")
    assert missing is not None
    assert missing.reason == "had not answered its invitation when the round closed"


def test_an_update_that_arrives_too_late_does_not_count() -> None:
    run = reporting()
    run.take(*reported("a"), *reported("b"), Offered(offer=offer("c")))
    run.take(Tick(), after_s=2000.0)
    before = run.state
    assert before.phase is Phase.AGGREGATING
    assert run.take(Delivered(device="c", update=UPDATES[0].id)) == []
    assert run.take(Rejected(device="c", update=UPDATES[0].id, reason="not finite")) == []
    assert run.state == before


# ---- deadlines --------------------------------------------------------------------


def test_an_update_that_advances_holds_the_round_open_but_not_for_ever() -> None:
    run = reporting()
    run.take(*reported("a"), *reported("b"), Offered(offer=offer("c")))
    run.take(Advanced(device="c"), after_s=990.0)
    run.take(Tick(), after_s=29.0)
    assert run.phase() is Phase.REPORTING
    while run.now < 1999.0:
        run.take(Advanced(device="c"), Tick(), after_s=10.0)
        assert run.phase() is Phase.REPORTING
    run.take(Advanced(device="c"), Tick(), after_s=1.0)
    assert run.phase() is Phase.AGGREGATING


def test_an_update_that_stands_still_does_not_hold_the_round_open() -> None:
    run = reporting()
    run.take(*reported("a"), *reported("b"), Offered(offer=offer("c")))
    for _ in range(100):
        run.take(Offered(offer=offer("c")), Tick(), after_s=10.0)  # saying it again is no progress
    assert run.phase() is Phase.AGGREGATING


# ---- the end ----------------------------------------------------------------------


@pytest.mark.parametrize("phase", [*OPEN, Phase.AGGREGATING])
def test_the_operator_stops_a_round_in_any_phase(phase: Phase) -> None:
    run = Run() if phase is Phase.SELECTING else reporting()
    if phase is Phase.AGGREGATING:
        run.take(*(event for device in DEVICES for event in reported(device)))
    assert run.phase() is phase
    commands = run.take(Cancelled(reason="stopped"))
    assert commands[-1] == Announce()
    assert {command.message.counted for command in commands[:-1]} <= {False}  # type: ignore[union-attr]  # results
    assert (run.phase(), run.state.reason) == (Phase.ABANDONED, "stopped")
    run.take(Aggregated(result=RESULT))
    assert run.phase() is Phase.ABANDONED
