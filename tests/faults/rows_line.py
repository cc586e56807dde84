"""Rows 1, 2, 3, 7 and 12: what the line between a party and the broker does."""

import random
import time
from collections.abc import Sequence

from common.messages import DeviceStatus, decode_story, unsigned
from common.topics import Kind
from tests.faults.arena import DEVICES, Arena, NotSurvivedError, Setup
from tests.faults.passing import CONTROL, COORDINATOR, Match, Passing, Watch, Way, carries
from tests.faults.proxy import Line
from tests.faults.row import Outcome, Row

TRIGGER_S = 60.0
NOTICED_S = 15.0
"""A black hole of this length must be noticed: 1.5 keep alives of 5 s, and the broker looks every few seconds."""
SLOW = Setup(
    parameters=50_000,
    chunk_bytes=8192,
    credit_chunks=128,
    repair_s=2.0,
    repair_max_s=30.0,
    keepalive_s=5,
    deadline_s=4.0,
    grace_s=4.0,
)
"""A model of 200 kB, which 50 kB/s carry in 4 s; timers of transfers are fedpi's own. The deadline is shorter than a
delivery over that line, so that only progress keeps the round open."""

PATIENT = Setup(repair_s=2.0, repair_max_s=30.0)
"""Where bytes are counted, timers are fedpi's own: with shorter ones a busy machine makes receivers ask again."""


# ---- 1: a reset inside a chunk ----------------------------------------------------------------


def reset_inside_a_chunk(arena: Arena, rng: random.Random) -> Outcome:
    """Reset a bulk connection inside a chunk of an update or, between two rounds, of the model."""
    party = rng.choice([COORDINATOR, *DEVICES])
    kind, setup = rng.choice([Kind.DEV_UP, Kind.BLOB]), arena.setup
    way = Way.UP if (party == COORDINATOR) is (kind is Kind.BLOB) else Way.DOWN
    chunks = setup.model_bytes // setup.chunk_bytes
    cut = arena.proxy.cut(carries(kind, way, party), rng.randrange(1, chunks), rng.random())
    trial = arena.open(rounds=1 if kind is Kind.DEV_UP else 2)
    await_(cut, f"a chunk {way.value} at {party}")
    closed = trial.finish()
    window = setup.credit_chunks if kind is Kind.DEV_UP else min(setup.window_chunks, chunks + 2)
    most = window * setup.chunk_bytes
    for topic, resent in arena.proxy.tally.resent.items():
        if resent > most:
            raise NotSurvivedError(f"{resent} bytes were sent again on {topic}; a window has {most}")
    return Outcome(max(closed - cut.at, 0.0), arena.proxy.tally.resent_bytes, f"{party}, {kind.value}, {way.value}")


# ---- 2: a black hole --------------------------------------------------------------------------


def black_hole(arena: Arena, rng: random.Random) -> Outcome:
    """Let nothing pass to and from one party for 5 to 60 s, and end no connection."""
    party = COORDINATOR if rng.random() < 0.2 else rng.choice(DEVICES)
    seconds = 60.0 if arena.seed % 20 == 19 else 5.0 + 55.0 * rng.random() ** 3
    begin = arena.proxy.watch(rng.choice(_moments(party)), rng.randrange(1, 5))
    gone = arena.proxy.watch(_tells_offline)
    trial = arena.open()
    await_(begin, f"a moment of {party}")
    arena.proxy.hole(party)
    time.sleep(seconds)
    if seconds >= NOTICED_S and not _is_shown_offline(arena, party, gone):
        raise NotSurvivedError(f"nobody showed {party} as offline within {seconds:.0f} s")
    arena.proxy.lift(party)
    lifted = time.time()
    closed = trial.finish()
    note = f"{party}, {seconds:.0f} s" + (", shown as offline" if gone.came.is_set() else "")
    return Outcome(max(closed - lifted, 0.0), arena.proxy.tally.resent_bytes, note)


def _moments(party: str) -> Sequence[Match]:
    if party == COORDINATOR:
        return carries(Kind.DEV_SAY, Way.DOWN), carries(Kind.DEV_CMD, Way.UP), carries(Kind.DEV_UP, Way.DOWN)
    return carries(Kind.DEV_CMD, Way.DOWN, party), carries(Kind.DEV_UP, Way.UP, party)


def _tells_offline(passing: Passing) -> bool:
    """Whether the broker tells a will on, or the status of somebody who left."""
    is_status = passing.kind in {Kind.DEV_STATUS, Kind.COORD_STATUS}
    return is_status and passing.way is Way.DOWN and b'"state":"offline"' in passing.publish.payload


def _is_shown_offline(arena: Arena, party: str, gone: Watch) -> bool:
    return gone.came.is_set() and (party == COORDINATOR or arena.state(party) == "offline")


# ---- 3: a slow line ---------------------------------------------------------------------------


def slow_line(arena: Arena, rng: random.Random) -> Outcome:
    """Give every device a line of 300 ms +- 200 ms, of 50 kB/s, or of both, in turn."""
    time.sleep(rng.uniform(0.0, 0.5))
    latency, rate = {"latency_s": 0.3, "jitter_s": 0.2}, {"bytes_per_s": 50_000.0}
    name, line = (
        ("300 ms +- 200 ms", Line(**latency)),
        ("50 kB/s", Line(**rate)),
        ("both", Line(**latency, **rate)),
    )[arena.seed % 3]
    resets = arena.proxy.resets
    before = arena.log_sizes()
    started = time.time()
    for device in DEVICES:
        arena.proxy.line(device, line)
    trial = arena.open()
    closed = trial.finish()
    arena.settle()  # the new model goes over that line, too
    if arena.proxy.resets != resets or any(" down: " in arena.logged(name, before) for name in arena.examples):
        raise NotSurvivedError("a connection broke, and nobody broke it")
    return Outcome(0.0, arena.proxy.tally.resent_bytes, f"{name}: {closed - started:.1f} s from asking to closing")


# ---- 7: repeated and out of order -------------------------------------------------------------


def repeated_and_out_of_order(arena: Arena, rng: random.Random) -> Outcome:
    """Repeat a fifth of all chunks and commands, and let others overtake a fifth, on every connection."""
    kinds = {Kind.DEV_UP, Kind.BLOB, Kind.DEV_SAY, Kind.DEV_CMD}
    counts = [0, 0]

    def meddle(passing: Passing, packet: bytes) -> list[tuple[float, bytes]]:
        draw = rng.random() if passing.kind in kinds else 1.0
        if draw < 0.2:
            counts[0] += 1
            return [(0.0, packet), (rng.choice([0.0, rng.uniform(0.0, 0.3)]), packet)]
        if draw < 0.4:
            counts[1] += 1
            return [(rng.uniform(0.0, 0.1), packet)]
        return [(0.0, packet)]

    arena.proxy.meddle(meddle)
    trial = arena.open(rounds=2)
    closed = trial.finish()
    ended = time.time()
    arena.proxy.meddle(None)
    note = f"{counts[0]} repeated, {counts[1]} overtaken"
    return Outcome(max(closed - ended, 0.0), arena.proxy.tally.resent_bytes, note)


# ---- 12: the late will of an old connection -----------------------------------------------------


def late_will(arena: Arena, rng: random.Random) -> Outcome:
    """Keep a device's old connection at the broker, and let it die only when the device has long come back."""
    party = rng.choice(DEVICES)
    moments = [
        carries(Kind.COORD_ROUND, Way.DOWN, party),
        carries(Kind.DEV_CMD, Way.DOWN, party),
        carries(Kind.DEV_UP, Way.UP, party),
    ]
    begin = arena.proxy.watch(rng.choice(moments), rng.randrange(1, 3))
    back = arena.proxy.watch(lambda p: carries(Kind.DEV_STATUS, Way.UP, party)(p) and begin.came.is_set())
    trial = arena.open()
    await_(begin, f"a moment of {party}")
    arena.proxy.abandon(party, CONTROL)
    await_(back, f"the return of {party}")
    arena.until(lambda: arena.state(party) == "online", f"{party} online again")
    time.sleep(rng.uniform(0.0, 1.0))
    will = arena.proxy.watch(lambda p: _is_will_of(p, party))
    arena.proxy.bury()
    await_(will, f"the will of the old connection of {party}")
    told = time.time()
    closed = trial.finish()
    time.sleep(max(told + 0.6 - time.time(), 0.0))  # the coordinator notes every quarter of a second who is here
    if arena.state(party) != "online":
        raise NotSurvivedError(f"the late will of an old connection took {party} offline")
    return Outcome(max(closed - told, 0.0), arena.proxy.tally.resent_bytes, party)


def _is_will_of(passing: Passing, party: str) -> bool:
    if (passing.party, passing.way, passing.kind) != (COORDINATOR, Way.DOWN, Kind.DEV_STATUS):
        return False
    status = decode_story(unsigned(passing.publish.payload)[0], DeviceStatus)
    return (status.device, status.state) == (party, "offline")


def await_(watch: Watch, what: str) -> None:
    """Wait for a message. Raises NotSurvivedError."""
    if not watch.came.wait(TRIGGER_S):
        raise NotSurvivedError(f"waited {TRIGGER_S:g} s in vain for {what}")


ROWS = (
    Row(
        number=1,
        fault="TCP reset at byte k inside a chunk, both directions",
        how="proxy",
        holds="same hash; at most one window sent again",
        inject=reset_inside_a_chunk,
        setup=PATIENT,
        short_seeds=(0, 1),
    ),
    Row(
        number=2,
        fault="black hole of 5 s to 60 s, no FIN",
        how="proxy",
        holds="offline shown, resumed, same hash",
        inject=black_hole,
        short_seeds=(6,),
        is_waiting=True,
    ),
    Row(
        number=3,
        fault="300 ms +- 200 ms latency, 50 kB/s bandwidth, and both",
        how="proxy, a model of 200 kB",
        holds="ends before the deadline by progress, no keepalive kick",
        inject=slow_line,
        setup=SLOW,
        short_seeds=(2,),
        is_waiting=True,
    ),
    Row(
        number=7,
        fault="duplicated and reordered chunks and commands",
        how="proxy",
        holds="same hash",
        inject=repeated_and_out_of_order,
    ),
    Row(
        number=12,
        fault="late will of an old connection",
        how="proxy keeps the old socket",
        holds="ignored",
        inject=late_will,
    ),
)
