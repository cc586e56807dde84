"""A round as a state machine: properties of any history of events, and restarts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.messages import Offer, Ref, Refusal
from coordinator.events import (
    Accepted,
    Advanced,
    Aggregate,
    Aggregated,
    Announce,
    Cancelled,
    CheckedIn,
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
from coordinator.round import deadline, resume, step, wait_anew
from coordinator.round_state import Phase, Round, Standing
from tests.rounds import GENERATION, digest, open_round

DEVICES = ("a", "b", "c")
STRANGER = "x"
FINAL = {Phase.COMMITTED, Phase.ABANDONED}


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


def joined(*devices: str) -> list[Event]:
    return [CheckedIn(device=device) for device in devices]


devices = st.sampled_from((*DEVICES, STRANGER))
updates = st.sampled_from(UPDATES)
offers = st.builds(
    offer,
    devices,
    update=updates | st.just(ref("3", size=9)),
    plan=st.sampled_from([PLAN, PLAN, "8" * 64]),
    examples=st.sampled_from([3, 101]),
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(CheckedIn, device=devices),
    st.builds(Left, device=devices),
    st.builds(Accepted, device=devices),
    st.builds(Declined, device=devices, reason=st.just("busy")),
    st.builds(Failed, device=devices, reason=st.just("broke")),
    st.builds(Offered, offer=offers),
    st.builds(Advanced, device=devices),
    st.builds(Delivered, device=devices, update=updates.map(lambda update: update.id)),
    st.builds(Rejected, device=devices, update=updates.map(lambda update: update.id), reason=st.just("not finite")),
    st.just(Tick()),
)
ends: st.SearchStrategy[Event] = st.builds(Aggregated, result=st.just(RESULT)) | st.builds(
    Cancelled, reason=st.just("stopped")
)
times = st.sampled_from([0.0, 0.0, 1.0, 29.0, 101.0, 1001.0])
histories = st.lists(st.tuples(times, st.one_of(events, events, events, events, ends)), max_size=40)
# Half of the histories begin where random ones seldom get to: with an open round.
begun = st.booleans()


def play(history: list[tuple[float, Event]], is_begun: bool) -> Run:
    run = Run()
    if is_begun:
        run.take(*joined(*DEVICES))
    for after_s, event in history:
        run.take(event, after_s=after_s)
    return run


@given(histories, begun)
def test_any_history_ends_once_the_clock_has_passed(history: list[tuple[float, Event]], is_begun: bool) -> None:
    run = play(history, is_begun)
    run.take(Tick(), after_s=2001.0)
    run.take(Tick(), after_s=2001.0)
    run.take(Aggregated(result=RESULT))
    assert run.state.phase in FINAL


@given(histories, begun, events | ends)
def test_a_repeated_event_changes_nothing(history: list[tuple[float, Event]], is_begun: bool, event: Event) -> None:
    run = play(history, is_begun)
    run.take(event)
    once = run.state
    run.take(event)
    assert run.state == once


@given(histories, begun)
def test_a_model_is_only_made_of_enough_updates_of_the_cohort(
    history: list[tuple[float, Event]], is_begun: bool
) -> None:
    run, cohort, counted = Run(), set[str](), dict[str, str]()
    for after_s, event in [*((0.0, e) for e in joined(*DEVICES) if is_begun), *history]:
        before = run.state
        run.take(event, after_s=after_s)
        state = run.state
        if before.phase is Phase.SELECTING:
            cohort = {m.device for m in state.members}
        assert {m.device for m in state.members} == cohort
        assert [m.device for m in state.members] == sorted(cohort)
        now_counted = {m.device: m.update.id for m in state.reported if m.update}
        assert len(now_counted) == len(state.reported)
        assert counted.items() <= now_counted.items(), "an update that counted no longer does"
        for device in now_counted.keys() - counted.keys():
            assert event == Delivered(device=device, update=now_counted[device])
            assert before.phase is Phase.REPORTING
        counted = now_counted
        if state.phase in {Phase.AGGREGATING, Phase.COMMITTED}:
            assert len(counted) >= state.options.minimum
        if before.phase in FINAL:
            assert state == before
    assert sum(isinstance(command, Aggregate) for command in run.said) <= 1
    assert (run.state.phase is Phase.COMMITTED) == (run.state.result is not None)


@given(histories, begun)
def test_what_peers_may_rely_on_is_commanded_and_so_saved_first(
    history: list[tuple[float, Event]], is_begun: bool
) -> None:
    run = Run()
    for after_s, event in [*((0.0, e) for e in joined(*DEVICES) if is_begun), *history]:
        before = run.state
        commands = run.take(event, after_s=after_s)
        if before.phase is not run.state.phase:
            assert Announce() in commands
            assert (Aggregate() in commands) == (run.state.phase is Phase.AGGREGATING)
        promised = {Standing.REPORTED, Standing.REFUSED, Standing.DELIVERING}
        if [m for m in before.members if m.standing in promised] != [
            m for m in run.state.members if m.standing in promised
        ]:
            assert commands or isinstance(event, Advanced | Declined | Failed)


@given(histories, begun, st.one_of(events, ends))
def test_events_of_strangers_change_nothing_once_the_cohort_is_invited(
    history: list[tuple[float, Event]], is_begun: bool, event: Event
) -> None:
    run = play(history, is_begun)
    device = event.offer.device if isinstance(event, Offered) else getattr(event, "device", "")
    if run.state.phase is Phase.SELECTING or run.state.member(device) is not None or not device:
        return
    before = run.state
    commands = run.take(event)
    assert run.state == before
    assert all(isinstance(c, Tell) and isinstance(c.message, Refusal) for c in commands)


def saved(state: Round) -> Round:
    """What comes back from the journal."""
    return msgspec.json.decode(msgspec.json.encode(state), type=Round)


@given(st.lists(st.one_of(events, events, events, ends), max_size=25), begun)
def test_a_restart_after_every_checkpoint_reaches_the_same_end(history: list[Event], is_begun: bool) -> None:
    """What was not saved yet had not been answered, so the devices say it again."""
    undisturbed = Run()
    disturbed = Run()
    checkpoint, since = disturbed.state, list[Event]()
    for event in [*(e for e in joined(*DEVICES) if is_begun), *history]:
        undisturbed.take(event)
        since.append(event)
        if disturbed.take(event):
            checkpoint, since = disturbed.state, []
        disturbed.state, _ = resume(saved(checkpoint), disturbed.now)
        disturbed.take(*since)
    assert disturbed.state == undisturbed.state


@given(histories, begun)
def test_the_deadline_is_extended_by_progress_at_most_once(history: list[tuple[float, Event]], is_begun: bool) -> None:
    run = play(history, is_begun)
    if run.state.phase is Phase.REPORTING:
        due = run.state.phase_since + run.state.options.deadline_s
        assert due <= deadline(run.state) <= due + run.state.options.deadline_s


# ---- restarts in deep states ----------------------------------------------------------------


def reported(device: str, update: Ref = UPDATES[0]) -> list[Event]:
    return [Offered(offer=offer(device, update=update)), Delivered(device=device, update=update.id)]


def reporting(devices: Sequence[str] = DEVICES, minimum: int = 2) -> Run:
    run = Run(new(goal=len(devices), minimum=minimum))
    run.take(*joined(*devices))
    assert run.state.phase is Phase.REPORTING
    return run


def standing(run: Run, device: str) -> Standing | None:
    member = run.state.member(device)
    return member.standing if member else None


def test_an_average_that_a_restart_cut_off_is_computed_again() -> None:
    run = reporting()
    run.take(*(event for device in DEVICES for event in reported(device)))
    resumed, commands = resume(saved(run.state), 7.0)
    assert commands == (Announce(), Aggregate())
    assert resumed.phase is Phase.AGGREGATING


def test_waiting_begins_anew_after_a_restart() -> None:
    run = reporting()
    run.take(Offered(offer=offer("a")), after_s=900.0)
    resumed, commands = resume(saved(run.state), 7.0)
    assert commands == (Announce(),)
    assert deadline(resumed) == 1007.0


def test_waiting_begins_anew_when_devices_can_be_heard() -> None:
    run = reporting()
    run.take(Offered(offer=offer("a")), after_s=900.0)
    assert deadline(wait_anew(run.state, 2000.0)) == 3000.0
    assert wait_anew(run.state, 2000.0).standing(Standing.DELIVERING)[0].advanced_at == 2000.0


@pytest.mark.parametrize("reporters", [("a",), DEVICES])
def test_an_update_that_a_power_cut_took_is_waited_for_again(reporters: tuple[str, ...]) -> None:
    run = reporting()
    run.take(*(event for device in reporters for event in reported(device)))
    run.state, commands = resume(saved(run.state), 7.0, frozenset({"a"}))
    assert commands == (Announce(),)
    assert (run.state.phase, standing(run, "a")) == (Phase.REPORTING, Standing.INVITED)
    run.take(*(event for device in DEVICES for event in reported(device)))
    assert run.state.phase is Phase.AGGREGATING


def test_an_update_lost_for_good_leaves_the_others_to_the_deadline() -> None:
    run = reporting()
    run.take(*(event for device in DEVICES for event in reported(device)))
    run.state, _ = resume(saved(run.state), 0.0, frozenset({"a"}))
    run.take(Tick(), after_s=1000.0)
    assert run.state.phase is Phase.AGGREGATING
    assert [m.device for m in run.state.reported] == ["b", "c"]
