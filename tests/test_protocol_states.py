"""The states in `docs/protocol.md` against the code: every row of its tables is played to the machines."""

from typing import Any

import msgspec
import pytest

from common.messages import CheckIn, Decline, Failed, Offer, Ref, Result, RoundStatus
from coordinator import events
from coordinator.round import step
from coordinator.round_state import Member, Phase, Round, Standing
from device import session as sessions
from device import session_events as happened
from device.session import Session, Stage, Task
from tests.rounds import GENERATION, digest, open_round, plan_of
from tests.test_protocol_document import table

# ---- states ---------------------------------------------------------------------------------

BASE = Ref(id="ba" * 32, head_bytes=100, size=1000, chunk_bytes=4096)
UPDATE = Ref(id="cd" * 32, head_bytes=100, size=1000, chunk_bytes=4096)
PLAN = plan_of(1, BASE)
OFFER = Offer(device="a", round=1, generation=GENERATION, plan=digest(PLAN), update=UPDATE, num_examples=10)


def a_round(phase: str, minimum: int = 1, **standings: str) -> Round:
    """Build a round of the devices `standings`, begun at time 0, with 10 s for each phase."""
    members = tuple(
        Member(device=d, standing=Standing(s), update=UPDATE if s in {"delivering", "reported"} else None)
        for d, s in standings.items()
    )
    opened = open_round(PLAN, goal=2, minimum=minimum, selection_s=10, deadline_s=10, grace_s=1)
    return msgspec.structs.replace(opened, phase=Phase(phase), members=members)


STOPS = events.Cancelled(reason="stopped")
PHASE_PLAYS: dict[str, tuple[Round, events.Event]] = {
    "goal devices have checked in": (a_round("selecting", b="joined"), events.CheckedIn(device="a")),
    "`selection_s` has passed, at least minimum have checked in": (a_round("selecting", b="joined"), events.Tick()),
    "`selection_s` has passed, fewer have checked in": (a_round("selecting", 2, b="joined"), events.Tick()),
    "every member is settled, at least minimum reported": (
        a_round("reporting", a="accepted", b="reported"),
        events.Failed(device="a", reason="x"),
    ),
    "every member is settled, fewer reported": (
        a_round("reporting", 2, a="accepted", b="reported"),
        events.Declined(device="a", reason="x"),
    ),
    "`deadline_s` has passed, at least minimum reported": (
        a_round("reporting", a="accepted", b="reported"),
        events.Tick(),
    ),
    "`deadline_s` has passed, fewer reported": (a_round("reporting", 2, a="accepted", b="reported"), events.Tick()),
    "the new model is stored": (a_round("aggregating", b="reported"), events.Aggregated(result=UPDATE)),
    "the operator stops it, selecting": (a_round("selecting", b="joined"), STOPS),
    "the operator stops it, reporting": (a_round("reporting", b="accepted"), STOPS),
    "the operator stops it, aggregating": (a_round("aggregating", b="reported"), STOPS),
}


def told(commands: tuple[events.Command, ...]) -> list[str]:
    """Name the messages that commands of a round become."""
    names = [
        "RoundStatus" if isinstance(c, events.Announce) else type(c.message).__name__
        for c in commands
        if isinstance(c, events.Announce | events.Tell)
    ]
    return list(dict.fromkeys(names))


@pytest.mark.parametrize("row", table("7.2 Phases, at the coordinator"), ids=lambda row: f"{row[0]}, {row[1]}")
def test_a_row_of_phases_is_what_the_round_does(row: list[str]) -> None:
    came_from, when, goes_to, says = row
    before, event = PHASE_PLAYS.get(when) or PHASE_PLAYS[f"{when}, {came_from.strip('`')}"]
    after, commands = step(before, event, 21.0)
    assert (f"`{before.phase}`", f"`{after.phase}`", ", ".join(told(commands))) == (came_from, goes_to, says)


def test_every_play_of_a_phase_is_in_the_document() -> None:
    assert len(table("7.2 Phases, at the coordinator")) == len(PHASE_PLAYS)


MEMBER_EVENTS: tuple[events.Event, ...] = (
    events.CheckedIn(device="a"),
    events.Accepted(device="a"),
    events.Declined(device="a", reason="x"),
    events.Failed(device="a", reason="x"),
    events.Offered(offer=OFFER),
    events.Delivered(device="a", update=UPDATE.id),
    events.Rejected(device="a", update=UPDATE.id, reason="x"),
)


@pytest.mark.parametrize("row", table("7.3 Members, at the coordinator"), ids=lambda row: row[0])
def test_a_row_of_members_is_what_the_round_does(row: list[str]) -> None:
    standing = row[0].strip("`")
    cells = []
    for event in MEMBER_EVENTS:
        after, commands = step(a_round("reporting", a=standing, b="invited"), event, 1.0)
        now = after.members[0].standing
        cells.append(", ".join(([] if now == standing else [f"`{now}`"]) + told(commands)) or "-")
    assert cells == row[1:]


def test_the_members_table_has_every_standing_of_an_open_round() -> None:
    named = {row[0].strip("`") for row in table("7.3 Members, at the coordinator")}
    assert named == set(Standing) - {"joined", "missing"}


def pointer(phase: Any, number: int = 1) -> happened.Pointed:
    return happened.Pointed(RoundStatus(epoch="e", round=number, generation=GENERATION, phase=phase))


STAGE_PLAYS: dict[str, happened.Event] = {
    "RoundStatus `selecting`": pointer("selecting"),
    "RoundStatus `selecting`, same round": pointer("selecting"),
    "RoundStatus `selecting`, next round": pointer("selecting", 2),
    "RoundStatus `reporting`": pointer("reporting"),
    "RoundStatus `aggregating`": pointer("aggregating"),
    "RoundStatus of this round, over": pointer("committed"),
    "a new connection or `epoch`": happened.Reconnected(),
    "Invite": happened.Invited(PLAN, digest(PLAN)),
    "Invite, other labels": happened.Invited(plan_of(1, BASE, labels=("yes", "no")), "d" * 64),
    "Receipt": happened.Receipted(1, GENERATION),
    "Refusal": happened.WasRefused(1, GENERATION, "x"),
    "Result": happened.WasResolved(Result(device="a", round=1, generation=GENERATION, counted=True)),
    "Want": happened.Wanted(UPDATE.id),
    "the base is here": happened.Fetched(BASE.id),
    "the update is on disk": happened.Trained(OFFER),
    "its health forbids training": happened.Examined("too hot"),
    "the training failed": happened.TrainingFailed(1, "x"),
}
SAYS: dict[Stage, happened.Said] = {
    Stage.JOINING: CheckIn(device="a", round=1, generation=GENERATION),
    Stage.OFFERING: OFFER,
    Stage.FAILED: Failed(device="a", round=1, generation=GENERATION, reason="x"),
    Stage.DECLINED: Decline(device="a", round=1, generation=GENERATION, reason="x"),
}


@pytest.mark.parametrize("row", table("7.6 Stages, at a device"), ids=lambda row: f"{row[0]}, {row[1]}")
def test_a_row_of_stages_is_what_the_session_does(row: list[str]) -> None:
    came_from, when, goes_to, says = row
    stage = next((stage for stage in Stage if came_from == f"`{stage.name.lower()}`"), None)
    before = session_at(stage)
    after, commands = sessions.step(before, STAGE_PLAYS[when], 1.0)
    reached = f"`{after.task.stage.name.lower()}`" if after.task else "none"
    spoken = [type(c.message).__name__ for c in commands if isinstance(c, happened.Speak)]
    assert (reached, ", ".join(spoken) or "-") == (goes_to, says)


def session_at(stage: Stage | None) -> Session:
    """A session in a stage, with what a device has by then."""
    if stage is None:
        return Session("a")
    has_plan = stage not in {Stage.JOINING, Stage.DECLINED}
    offer = OFFER if stage in {Stage.OFFERING, Stage.DELIVERED} else None
    task = Task(1, GENERATION, stage, PLAN if has_plan else None, digest(PLAN), offer, SAYS.get(stage))
    return Session("a", None, task)


@pytest.mark.parametrize("stage", [None, *Stage], ids=lambda stage: stage.name if stage else "none")
def test_what_the_table_of_stages_leaves_out_changes_no_stage_and_says_nothing(stage: Stage | None) -> None:
    came_from = f"`{stage.name.lower()}`" if stage else "none"
    listed = {row[1] for row in table("7.6 Stages, at a device") if row[0] == came_from}
    for when, event in STAGE_PLAYS.items():
        if stage is None and when.endswith((", same round", ", next round", ", over")):
            continue  # a device that is in no round knows no same or next one
        if when == "RoundStatus `selecting`" and stage is not None:
            continue
        after, commands = sessions.step(session_at(stage), event, 1.0)
        is_moved = (after.task.stage if after.task else None) is not stage
        spoken = [c for c in commands if isinstance(c, happened.Speak)]
        assert when in listed or not (is_moved or spoken), f"{came_from}, {when}: {after.task}, {spoken}"


def test_every_stage_and_every_event_of_a_device_is_in_the_document() -> None:
    rows = table("7.6 Stages, at a device")
    assert {row[2].strip("`") for row in rows} == {stage.name.lower() for stage in Stage} | {"none"}
    assert {row[1] for row in rows} == set(STAGE_PLAYS)
