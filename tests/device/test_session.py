"""A device's part in rounds: properties of any history, and short examples."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.messages import Accept, CheckIn, Failed, Offer, Ref, Result, RoundStatus
from common.plan import ModelChoice, RoundPlan
from device.session import WAITS, Session, Stage, Task, resume, step
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
    Receipted,
    Reconnected,
    Speak,
    StartJob,
    Tick,
    Trained,
    TrainingFailed,
    Wanted,
    WasRefused,
    WasResolved,
)

BASE, NEXT, UPDATE = (Ref(id=digit * 64, head_bytes=100, size=8, chunk_bytes=4096) for digit in "091")
GENERATION, OTHER, DIGEST = "aa", "bb", "d" * 64


def pointer(phase: str, number: int = 5, **more: object) -> Pointed:
    fields = {"epoch": "e0", "round": number, "generation": GENERATION, "phase": phase, "model": BASE, **more}
    return Pointed(RoundStatus(**fields))  # type: ignore[arg-type]  # its own fields


def plan(number: int = 5, base: Ref = BASE, generation: str = GENERATION) -> RoundPlan:
    return RoundPlan(round=number, generation=generation, base=base, model=ModelChoice(name="numpy"))


def invited(number: int = 5, base: Ref = BASE, generation: str = GENERATION) -> Invited:
    return Invited(plan(number, base, generation), DIGEST)


def offer(number: int = 5, generation: str = GENERATION) -> Offer:
    return Offer(device="pi", round=number, generation=generation, plan=DIGEST, update=UPDATE, num_examples=3)


def check_in(number: int = 5, generation: str = GENERATION) -> Speak:
    return Speak(CheckIn(device="pi", round=number, generation=generation))


def receipted(number: int = 5, generation: str = GENERATION) -> Receipted:
    return Receipted(number, generation)


def refused(number: int = 5, generation: str = GENERATION, reason: str = "no") -> WasRefused:
    return WasRefused(number, generation, reason)


def resolved(number: int = 5, generation: str = GENERATION, *, counted: bool = True) -> WasResolved:
    reason = "" if counted else "too late"
    return WasResolved(Result(device="pi", round=number, generation=generation, counted=counted, reason=reason))


CHECK_IN, ACCEPT = check_in(), Speak(Accept(device="pi", round=5, generation=GENERATION))
OFFER = Speak(offer())


@dataclass
class Device:
    """A session under way. Without an offer it comes fresh."""

    kept: Offer | None = None
    now: float = 0.0

    def __post_init__(self) -> None:
        self.state: Session = resume(Session("pi"), self.kept, self.now)

    def take(self, *events: Event, after_s: float = 0.0) -> list[Command]:
        """Let time pass, then the events come; returns what the last one led to."""
        self.now += after_s
        last: tuple[Command, ...] = ()
        for event in events:
            self.state, last = step(self.state, event, self.now)
        return list(last)

    def stage(self) -> Stage | None:
        return self.state.task.stage if self.state.task else None


TO_STAGE: dict[Stage, list[Event]] = {
    Stage.JOINING: [pointer("selecting")],
    Stage.FETCHING: [pointer("selecting"), invited()],
    Stage.TRAINING: [pointer("selecting"), invited(), Fetched(BASE.id)],
    Stage.OFFERING: [pointer("selecting"), invited(), Fetched(BASE.id), Trained(offer())],
    Stage.DELIVERED: [pointer("selecting"), invited(), Fetched(BASE.id), Trained(offer()), receipted()],
    Stage.FAILED: [pointer("selecting"), invited(), Fetched(BASE.id), TrainingFailed(5, "no memory")],
    Stage.REFUSED: [pointer("selecting"), refused()],
    Stage.DECLINED: [pointer("selecting"), Examined("too hot")],
}


def at(stage: Stage) -> Device:
    device = Device()
    device.take(*TO_STAGE[stage])
    assert device.stage() is stage
    return device


phases = st.sampled_from(["idle", "selecting", "reporting", "aggregating", "committed", "abandoned"])
numbers = st.sampled_from([4, 5, 5, 5, 6])
generations = st.sampled_from([GENERATION, GENERATION, OTHER])
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(pointer, phases, numbers, model=st.sampled_from([None, BASE, NEXT]), generation=generations),
    st.builds(invited, numbers, st.sampled_from([BASE, NEXT]), generations),
    st.builds(Fetched, st.sampled_from([BASE.id, NEXT.id])),
    st.builds(Trained, st.builds(offer, numbers, generations)),
    st.builds(TrainingFailed, numbers, st.just("x" * 600)),
    st.builds(Wanted, st.sampled_from([UPDATE.id, BASE.id])),
    st.builds(Receipted, numbers, generations),
    st.builds(WasRefused, numbers, generations, st.just("no")),
    st.builds(resolved, numbers, generations, counted=st.booleans()),
    st.builds(Examined, st.sampled_from(["", "too hot"])),
    st.just(Reconnected()),
    st.just(Tick()),
)
histories = st.lists(st.tuples(st.sampled_from([0.0, 1.0, 3.0, 61.0]), events), max_size=30)
starts = st.sampled_from([None, *Stage])


def of(task: Task | None) -> tuple[int, str] | None:
    return (task.round, task.generation) if task else None


def play(history: list[tuple[float, Event]], start: Stage | None) -> Device:
    device = at(start) if start else Device()
    for after_s, event in history:
        device.take(event, after_s=after_s)
    return device


@given(histories, starts)
def test_whatever_is_being_said_is_said_again_in_time(history: list[tuple[float, Event]], start: Stage | None) -> None:
    device = play(history, start)
    if device.state.task is None or device.state.task.says is None:
        return
    message = device.state.task.says
    assert device.state.task.repeat_at - device.now <= WAITS.repeat_max_s
    assert device.take(Tick(), after_s=WAITS.repeat_max_s) == [Speak(message)]


@given(histories, starts)
def test_a_device_only_speaks_for_itself_and_of_the_round_that_it_is_in(
    history: list[tuple[float, Event]], start: Stage | None
) -> None:
    device = at(start) if start else Device()
    for after_s, event in history:
        before = device.state.task
        for command in device.take(event, after_s=after_s):
            if isinstance(command, Speak):
                said, task = command.message, device.state.task
                assert said.device == "pi"
                assert len(getattr(said, "reason", "")) <= 500
                if isinstance(event, Pointed) and isinstance(said, CheckIn) and before is not None:
                    assert {(said.round, said.generation)} <= {of(before), of(task)}  # it asks what came of the last
                else:
                    assert (said.round, said.generation) == of(task)


@given(histories, starts)
def test_a_closed_round_leaves_nothing_behind(history: list[tuple[float, Event]], start: Stage | None) -> None:
    device = play(history, start)
    was_busy = device.state.task is not None
    commands = device.take(pointer("idle"))
    assert device.state.task is None
    assert (DropUpdate() in commands) == (CancelJob() in commands) == was_busy
    assert device.take(Tick(), Reconnected(), after_s=1000.0) == []


@given(histories, starts)
def test_a_job_runs_in_one_stage_only(history: list[tuple[float, Event]], start: Stage | None) -> None:
    device, is_running = at(start) if start else Device(), start is Stage.TRAINING
    for after_s, event in history:
        before = device.stage()
        commands = device.take(event, after_s=after_s)
        if CancelJob() in commands or (isinstance(event, Trained | TrainingFailed) and before is not device.stage()):
            is_running = False
        if started := [c for c in commands if isinstance(c, StartJob)]:
            assert not is_running
            assert device.state.task is not None
            assert started == [StartJob(device.state.task.plan, DIGEST)]  # type: ignore[arg-type]  # there is one
            is_running = True
        assert is_running == (device.stage() is Stage.TRAINING)


@given(histories, starts)
def test_a_finished_update_is_dropped_only_when_its_round_is_over_or_refused(
    history: list[tuple[float, Event]], start: Stage | None
) -> None:
    device = at(start) if start else Device()
    for after_s, event in history:
        task = device.state.task
        if DropUpdate() not in device.take(event, after_s=after_s):
            continue
        assert task is not None
        match event:
            case WasRefused(round=number, generation=generation):
                assert (number, generation) == of(task)
            case Pointed(status=status):
                is_open = status.phase in {"selecting", "reporting", "aggregating"}
                assert (status.round, status.generation) != of(task) or not is_open
            case _:
                pytest.fail(f"{event} dropped an update")


# ---- examples -------------------------------------------------------------------------------


def test_a_round_as_it_should_be() -> None:
    device = Device()
    assert device.take(pointer("selecting")) == [Fetch(BASE), CHECK_IN]
    assert device.take(invited()) == [ACCEPT, Fetch(BASE)]
    assert device.take(Fetched(BASE.id)) == [StartJob(plan(), DIGEST)]
    assert device.take(Trained(offer())) == [OFFER]
    assert device.take(Wanted(UPDATE.id)) == []
    assert device.take(receipted()) == []
    assert device.stage() is Stage.DELIVERED
    assert device.take(resolved()) == []
    assert device.take(pointer("committed", model=NEXT)) == [Fetch(NEXT), CancelJob(), DropUpdate()]
    assert device.state.doing == "waiting for a round; its update of round 5 counted"
    assert device.take(pointer("selecting", 6, model=NEXT)) == [check_in(6)]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Stage.JOINING, CHECK_IN),
        (Stage.OFFERING, OFFER),
        (Stage.FAILED, Speak(Failed(device="pi", round=5, generation=GENERATION, reason="no memory"))),
    ],
)
def test_what_nobody_answers_is_said_ever_more_slowly(stage: Stage, message: Speak) -> None:
    device, waits, last = at(stage), list[float](), 0.0
    while len(waits) < 8:
        if said := device.take(Tick(), after_s=0.5):
            assert said == [message]
            waits.append(device.now - last)
            last = device.now
    assert waits == [WAITS.repeat_s, 6.0, 12.0, 24.0, 48.0, 60.0, 60.0, 60.0]
    assert device.take(Reconnected()) == [message]


@pytest.mark.parametrize("stage", [Stage.FETCHING, Stage.TRAINING, Stage.REFUSED])
def test_where_nothing_is_to_be_said_there_is_silence(stage: Stage) -> None:
    assert at(stage).take(Tick(), Reconnected(), after_s=1000.0) == []


def test_a_coordinator_that_is_fetching_the_update_is_left_in_peace() -> None:
    device = at(Stage.OFFERING)
    device.take(Wanted(UPDATE.id))
    assert device.take(Tick(), after_s=WAITS.wanted_s - 1.0) == []
    assert device.take(Tick(), after_s=1.0) == [OFFER]


def test_a_restart_without_an_offer_asks_for_the_invitation_again() -> None:
    device = Device()
    assert device.take(pointer("reporting")) == [Fetch(BASE), CHECK_IN]
    assert device.take(invited()) == [ACCEPT, Fetch(BASE)]


@pytest.mark.parametrize("stage", [Stage.FETCHING, Stage.TRAINING, Stage.OFFERING])
@pytest.mark.parametrize("status", [pointer("selecting", 6), pointer("abandoned"), pointer("committed", model=NEXT)])
def test_a_round_that_ended_cancels_the_work_on_it(stage: Stage, status: Pointed) -> None:
    commands = at(stage).take(status)
    assert CancelJob() in commands
    assert DropUpdate() in commands


def test_an_invitation_to_another_round_is_ignored() -> None:
    device = Device()
    assert device.take(invited()) == []
    device = at(Stage.JOINING)
    assert device.take(invited(6)) == []
    assert device.stage() is Stage.JOINING


@pytest.mark.parametrize("stage", [Stage.FETCHING, Stage.TRAINING])
def test_a_repeated_invitation_is_only_accepted_again(stage: Stage) -> None:
    device = at(stage)
    before = device.state
    assert device.take(invited()) == [ACCEPT]
    assert device.state == before


@pytest.mark.parametrize("stage", [Stage.OFFERING, Stage.FAILED, Stage.REFUSED])
def test_a_late_invitation_changes_nothing(stage: Stage) -> None:
    device = at(stage)
    before = device.state
    assert device.take(invited()) == []
    assert device.state == before


def test_the_outcome_of_an_older_job_changes_nothing() -> None:
    device = at(Stage.TRAINING)
    before = device.state
    device.take(Trained(offer(4)), TrainingFailed(4, "no memory"), Fetched(NEXT.id))
    assert device.state == before


def test_a_refusal_ends_the_round_for_this_device() -> None:
    device = at(Stage.OFFERING)
    assert device.take(refused(reason="not finite")) == [CancelJob(), DropUpdate()]
    assert device.take(refused(4)) == []
    assert device.take(Trained(offer()), receipted(), Tick(), after_s=1000.0) == []


@pytest.mark.parametrize("stage", [Stage.FETCHING, Stage.TRAINING, Stage.OFFERING, Stage.DELIVERED])
def test_a_coordinator_that_lost_its_cohort_is_told_again(stage: Stage) -> None:
    device = at(stage)
    assert device.take(pointer("selecting", epoch="e1")) == [CHECK_IN]
    assert device.stage() is stage


def test_a_refusal_that_the_coordinator_forgot_no_longer_holds() -> None:
    device = at(Stage.REFUSED)
    assert device.take(pointer("selecting", epoch="e1")) == [CHECK_IN]
    assert device.stage() is Stage.JOINING


def test_the_model_to_hold_is_fetched_once() -> None:
    device = Device()
    assert device.take(pointer("idle")) == [Fetch(BASE)]
    assert device.take(pointer("idle")) == []
    assert device.take(pointer("idle", model=None)) == []
    assert device.take(pointer("idle", model=NEXT)) == [Fetch(NEXT)]


def test_a_hello_goes_before_what_was_not_answered_since_the_last_one_may_be_lost() -> None:
    device = Device()
    (first,) = [c for c in device.take(pointer("selecting")) if isinstance(c, Speak)]
    (again,) = [c for c in device.take(Tick(), after_s=WAITS.repeat_max_s) if isinstance(c, Speak)]
    assert (first.is_repeat, again.is_repeat) == (False, True)
