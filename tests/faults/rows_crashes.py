"""Rows 9 and 10: the coordinator and a device end at every place where that could matter, and are started again.

The first half of the injections is a SIGKILL at each place, the second half a power cut: what was not synced is torn.
"""

import random
import time
from dataclasses import dataclass

from tests.faults import scenarios, victims
from tests.faults.arena import DEVICES, Arena, NotSurvivedError, Setup
from tests.faults.launcher import Action, Fault
from tests.faults.passing import COORDINATOR
from tests.faults.row import Outcome, Row
from tests.faults.scenarios import Scenario

TIMED = Setup(deadline_s=6.0, grace_s=2.0)
SELECTION_S = 2.0
KILLED_AT, MOST_RESENT = 0.6, 0.45
"""Share of a transfer that is over when an end of it is killed, and that may travel again then."""
CHUNKS = TIMED.model_bytes // TIMED.chunk_bytes
ALL = ("before", "saved", "half", "spoken")
ENDS: tuple[Action, ...] = ("kill", "cut")
NO_HALF = ("before", "saved", "spoken")


@dataclass(frozen=True)
class Place:
    """Where to strike: at one of the first `most` times that it is reached."""

    name: str
    scenario: Scenario = scenarios.plain
    most: int = 1


def _edge(name: str, scenario: Scenario, moments: tuple[str, ...] = NO_HALF, most: int = 1) -> list[Place]:
    return [Place(f"{name} {moment}", scenario, most) for moment in moments]


def _around(*names: str, most: int = 1) -> list[Place]:
    return [Place(f"{name} {moment}", most=most) for name in names for moment in ("before", "after")]


EDGES = (
    *_edge("begin", scenarios.plain),
    *_edge("CheckedIn selecting>selecting", scenarios.plain, ("spoken",), 4),
    *_edge("CheckedIn selecting>reporting", scenarios.plain, ALL),
    *_edge("Accepted reporting>reporting", scenarios.plain, ("spoken",), 5),
    *_edge("Offered reporting>reporting", scenarios.plain, most=5),
    *_edge("Delivered reporting>reporting", scenarios.plain, most=4),
    *_edge("Delivered reporting>aggregating", scenarios.plain, ALL),
    *_edge("Aggregated aggregating>committed", scenarios.plain),
    *_edge("Tick selecting>reporting", scenarios.one_absent, ALL),
    *_edge("Tick selecting>abandoned", scenarios.three_absent),
    *_edge("Tick reporting>aggregating", scenarios.one_late, ALL),
    *_edge("Tick reporting>abandoned", scenarios.three_late),
    *_edge("CheckedIn reporting>reporting", scenarios.one_invited_again, ("half", "spoken")),
    *_edge("Cancelled reporting>abandoned", scenarios.cancelled),
    *_edge("Failed", scenarios.one_failing, ("spoken",)),
    *_edge("Offered refused", scenarios.one_refused),
    *_edge("Rejected refused", scenarios.one_spoilt),
    *_around("journal.go_on", "journal.end_run"),
    *_around("updates.prepare", "updates.finish", most=5),
    *_around("updates.write", most=5 * CHUNKS // 2),
    *_around("models.add_blocks", "models.publish", "models.sync"),
)
STAGES = (
    *_around("say CheckIn", "say Accept", "say Offer"),
    *_around("train", "updates.add", "updates.publish", "keep_offer", "secure", "drop_update"),
    *_around("models.prepare", "models.finish"),
    Place("models.write after", most=0),
    Place("updates.read before", most=0),
)
"""Those with `most` 0 are reached chunk by chunk: at 60 % of them."""


# ---- 9: the coordinator -------------------------------------------------------------------------


def coordinator_ends(arena: Arena, rng: random.Random) -> Outcome:
    """End the coordinator at an edge of its state machine, or while it writes, and start it again."""
    place = EDGES[arena.seed % len(EDGES)]
    action: Action = ENDS[arena.seed // len(EDGES) % 2]
    if not victims.is_launched(arena, COORDINATOR):
        victims.reconfigure(arena, COORDINATOR, round={"selection_s": SELECTION_S})
        victims.launch(arena, COORDINATOR)
        arena.settle()
    fault = Fault(place.name, rng.randint(1, place.most), action, arena.seed)
    victims.arm(arena, COORDINATOR, fault)
    with place.scenario(arena) as (trial, must_count):
        trial.may_tell_again = action == "cut"
        if action == "cut":  # whoever has the journal open keeps what the cut takes
            arena.store.close()
        try:
            victims.await_end(arena, COORDINATOR, place.name)
            if action == "kill":
                _must_be_written(arena, place.name)
        finally:
            if action == "cut":
                (arena.journal.parent / f"{arena.journal.name}-shm").unlink(missing_ok=True)
            victims.launch(arena, COORDINATOR)
            restarted = time.time()
            if action == "cut":
                arena.store = arena.open_store()
        closed = trial.finish(must_count)
    return Outcome(max(closed - restarted, 0.0), arena.proxy.tally.resent_bytes, f"{action} at {place.name}")


def _must_be_written(arena: Arena, place: str) -> None:
    """Raise NotSurvivedError where the journal does not hold yet what the coordinator may have said."""
    edge, _, moment = place.rpartition(" ")
    target = edge.split()[1].partition(">")[2] if ">" in edge else ""
    phase = arena.store.rounds()[-1].phase if target else ""
    if moment in {"saved", "half", "spoken"} and phase != target:
        raise NotSurvivedError(f"a round was said to be {target}; the journal says {phase}")


# ---- 10: a device -------------------------------------------------------------------------------


def device_ends(arena: Arena, rng: random.Random) -> Outcome:
    """End a device at a stage of its part in a round, and start it again."""
    place, device = STAGES[arena.seed % len(STAGES)], rng.choice(DEVICES)
    action: Action = ENDS[arena.seed // len(STAGES) % 2]
    if not victims.is_launched(arena, device):
        victims.launch(arena, device)
        arena.settle()
    nth = rng.randint(1, place.most) if place.most else int(KILLED_AT * CHUNKS)
    victims.arm(arena, device, Fault(place.name, nth, action, arena.seed))
    trial = arena.open(rounds=2)
    victims.await_end(arena, device, place.name)
    sent = dict(arena.proxy.tally.resent)
    victims.launch(arena, device)
    restarted = time.time()
    closed = trial.finish()
    resent = max((total - sent.get(topic, 0) for topic, total in arena.proxy.tally.resent.items()), default=0)
    share = resent / arena.setup.model_bytes
    if not place.most and action == "kill" and share > MOST_RESENT:
        raise NotSurvivedError(f"{share:.0%} were sent again after a kill at {KILLED_AT:.0%}")
    return Outcome(max(closed - restarted, 0.0), arena.proxy.tally.resent_bytes, f"{device}, {action} at {place.name}")


def seeds_of(row: int, place: str) -> tuple[int, ...]:
    """Return the seeds of all injections `place`, such as "cut at models.write after"."""
    places, (action, _, name) = (EDGES if row == 9 else STAGES), place.partition(" at ")
    first = len(places) if action == "cut" else 0
    return tuple(first + number for number, found in enumerate(places) if found.name == name)


EXPECTED = (
    r"training failed: .*images is gone",
    r"refused: ",
    r"cannot fetch blob",
)
ROWS = (
    Row(
        number=9,
        fault="coordinator SIGKILL at every transition of its state machine",
        how="at every edge: before the save, between save and speaking, after speaking; once more as a power cut",
        holds="same round, same bytes",
        inject=coordinator_ends,
        setup=TIMED,
        expects=EXPECTED,
        injections=2 * len(EDGES),
        short_seeds=(2, 19),
    ),
    Row(
        number=10,
        fault="device SIGKILL or power cut at every stage",
        how="at every stage; the power cut tears what was not synced",
        holds="resumed; at most 45 % sent again when killed at 60 %",
        inject=device_ends,
        expects=EXPECTED,
        injections=2 * len(STAGES),
        short_seeds=(len(STAGES) - 1, 2 * len(STAGES) - 9),
    ),
)
