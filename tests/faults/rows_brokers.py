"""Rows 4, 5, 6, 15 and 16: brokers that die, forget, drop, count their window, or speak MQTT 3.1.1 only."""

import random
import time
from collections.abc import Mapping

from broker.connection import Connection, Session
from common.blobs import BlobStore
from common.config import BrokerConfig
from common.topics import Kind, topic
from coordinator.rehearsal.federation import FEDERATION
from tests.faults import brokers
from tests.faults.arena import DEVICES, Arena, NotSurvivedError, Setup, SkippedError
from tests.faults.passing import BULK, CONTROL, COORDINATOR, Tally, Way, carries
from tests.faults.proxy import Line
from tests.faults.row import Outcome, Row
from tests.faults.rows_line import await_
from tests.faults.scenarios import moment_of

USUAL = {"max_inflight_messages": "20", "max_queued_messages": "5000"}
BROKERS = Setup(broker_settings=(("autosave_interval", "1"),))
"""Mosquitto saves what it retains every second, so that a killed one comes back with old news."""
GREEDY = Setup(parameters=300_000, credit_chunks=200, repair_s=0.25)
"""A credit that no queue of 10 can hold, as of somebody who raised it without looking at the broker."""
LARGE = Setup(chunk_bytes=2**18, credit_chunks=8)
UNLIMITED = {"max_packet_size": str(2**20)}
SAID_AGAIN_S = 20.0
TRIES = 5
"""Rounds in which a queue may overflow."""


# ---- 4: killed and started again ----------------------------------------------------------------


def broker_killed(arena: Arena, rng: random.Random) -> Outcome:
    """Kill the broker in mid-round; it comes back with what it had saved, or with nothing."""
    _let_it_be(arena, USUAL)
    keeps = arena.seed % 2 == 0
    gone_s = rng.uniform(0.0, 1.5)
    back, closed = _replace_in_round(arena, rng, gone_s=gone_s, is_empty=not keeps)
    note = f"what it had saved is {'kept' if keeps else 'gone'}, away for {gone_s:.1f} s"
    return Outcome(max(closed - back, 0.0), arena.proxy.tally.resent_bytes, note)


# ---- 5: replaced by an empty one ----------------------------------------------------------------


def broker_replaced(arena: Arena, rng: random.Random) -> Outcome:
    """Put an empty broker in place of the one that runs, between rounds or in one."""
    _let_it_be(arena, USUAL)
    if arena.seed % 3 == 2:
        time.sleep(rng.uniform(0.0, 0.5))
        _replace(arena, is_empty=True)
        back = time.time()
        _wait_for_what_is_retained(arena)
        said_s = time.time() - back
        arena.open().finish()
        return Outcome(said_s, arena.proxy.tally.resent_bytes, "between rounds: until all retained documents were back")
    back, closed = _replace_in_round(arena, rng, is_empty=True)
    _wait_for_what_is_retained(arena)
    return Outcome(max(closed - back, 0.0), arena.proxy.tally.resent_bytes, "in a round")


def _wait_for_what_is_retained(arena: Arena) -> None:
    """Wait until a newcomer is told everything that the old broker knew."""
    names = {
        topic(Kind.COORD_STATUS, FEDERATION),
        topic(Kind.COORD_ROUND, FEDERATION),
        *(topic(Kind.DEV_STATUS, FEDERATION, device=device) for device in arena.examples),
    }
    heard: set[str] = set()
    with Connection(BrokerConfig(port=arena.port), Session("newcomer", "5")) as newcomer:
        for name in names:
            newcomer.subscribe(name)

        def is_told() -> bool:
            message = newcomer.receive(0.05)
            heard.update([message.topic] if message is not None else [])
            return heard == names

        arena.until(is_told, lambda: f"{', '.join(sorted(names - heard))} retained again", SAID_AGAIN_S)


# ---- 6: the queue overflows ---------------------------------------------------------------------


def queue_overflows(arena: Arena, rng: random.Random) -> Outcome:
    """Let the broker hold 10 messages for a receiver at most, and let the devices acknowledge late."""
    settings = {"max_inflight_messages": str(rng.choice([5, 10])), "max_queued_messages": "10"}
    _let_it_be(arena, settings)
    late_s = rng.uniform(0.05, 0.1)
    for party in DEVICES:
        arena.proxy.line(party, Line(latency_s=late_s))
    for _ in range(TRIES):  # on a machine that is busy with something else chunks come slowly enough to be taken
        closed = arena.open().finish()
        arena.settle()  # the new model overflows the queues, too
        ended = time.time()
        if arena.proxy.tally.resent_bytes:
            break
    else:
        raise NotSurvivedError(f"no queue overflowed in {TRIES} rounds, so nothing was shown")
    for party in DEVICES:
        arena.proxy.line(party, Line())
    note = f"{settings['max_inflight_messages']} in flight, devices {1000 * late_s:.0f} ms away"
    return Outcome(max(ended - closed, 0.0), arena.proxy.tally.resent_bytes, note)


# ---- 14: the packet limit -----------------------------------------------------------------------


def packet_limit(arena: Arena, rng: random.Random) -> Outcome:
    """Let a broker that carries smaller packets take over, between rounds or in one.

    A round that its base's chunks have cut off is void and says so; the one after it goes on with smaller chunks.
    """
    limit = (20_480, 131_072, 1_000_000)[arena.seed % 3]
    fits = min(arena.setup.chunk_bytes, (limit - 1024) // 1024 * 1024)
    is_in_round = rng.random() < 0.5
    if arena.chunk_bytes != arena.setup.chunk_bytes:
        _cut_as_at_first(arena)
    _let_it_be(arena, UNLIMITED)
    arena.proxy.tally = Tally()  # what is before this line is no fault
    trial = arena.open(rounds=2) if is_in_round else None
    if is_in_round:
        await_(arena.proxy.watch(carries(Kind.DEV_UP, Way.UP), rng.randint(1, 30)), "an update's chunk")
    _replace(arena, settings={"max_packet_size": str(limit)})
    links = {(party, link) for party in (COORDINATOR, *arena.examples) for link in (CONTROL, BULK)}
    arena.until(lambda: links <= arena.proxy.connected(), "everybody's connections")
    back, before = time.time(), arena.log_sizes()
    if trial is None:
        closed = arena.open().finish()
    else:
        closed = trial.finish(must_count=())
        last = arena.store.rounds(trial.first)[-1]
        if set(last.reported) != set(arena.examples):
            raise NotSurvivedError(f"the round after the broker's change is {last.phase}, of {last.reported}")
    if arena.chunk_bytes != fits:
        raise NotSurvivedError(f"the chunks have {arena.chunk_bytes} bytes where {fits} fit")
    if any(" down: " in arena.logged(name, before) for name in (COORDINATOR, *arena.examples)):
        raise NotSurvivedError("a connection broke after the change")
    note = f"packets of {limit}, chunks of {fits}, {'in' if is_in_round else 'between'} rounds"
    return Outcome(max(closed - back, 0.0), arena.proxy.tally.resent_bytes, note)


def _cut_as_at_first(arena: Arena) -> None:
    """Cut the global model into the chunks of the setup, behind the coordinator's back."""
    arena.processes.pop(COORDINATOR).kill()
    ref = arena.store.global_model()
    assert ref is not None, "the arena has waited for it"
    blobs, copy = BlobStore(arena.body(ref.id).parent), arena.folder / "recut.tmp"
    copy.write_bytes(arena.model())
    arena.store.set_global_model(blobs.add(copy, blobs.head(ref).spec, arena.setup.chunk_bytes))
    blobs.close()
    _replace(arena, settings=UNLIMITED)
    arena.start_coordinator()
    arena.settle()


# ---- 15: Receive Maximum ------------------------------------------------------------------------


def receive_maximum(arena: Arena, rng: random.Random) -> Outcome:
    """Let a broker with a Receive Maximum of 1 or 10 take over in mid-round."""
    _let_it_be(arena, USUAL)
    maximum = ("1", "10")[arena.seed % 2]
    settings = {**USUAL, "max_inflight_messages": maximum}
    back, closed = _replace_in_round(arena, rng, settings=settings)
    return Outcome(max(closed - back, 0.0), arena.proxy.tally.resent_bytes, f"Receive Maximum {maximum}")


# ---- 16: MQTT 3.1.1 only ------------------------------------------------------------------------


def old_protocol(arena: Arena, rng: random.Random) -> Outcome:
    """Let a broker that speaks MQTT 3.1.1 only take over in mid-round."""
    kind = ("aedes", "nats")[arena.seed % 2]
    if sentence := brokers.absence(kind):
        raise SkippedError(sentence)
    before = arena.log_sizes()
    back, closed = _replace_in_round(arena, rng, kind=kind)
    arena.settle()
    for party in (COORDINATOR, *DEVICES):
        if "link=control up mqtt=3.1.1" not in arena.logged(party, before):
            raise NotSurvivedError(f"{party} does not speak MQTT 3.1.1 with {kind}")
    return Outcome(max(closed - back, 0.0), arena.proxy.tally.resent_bytes, kind)


# ---- the broker ---------------------------------------------------------------------------------


def _let_it_be(arena: Arena, settings: Mapping[str, str]) -> None:
    """Let Mosquitto run with these settings, if this federation is Mosquitto's."""
    if arena.setup.broker == "mosquitto" and not brokers.is_configured(arena, settings):
        _replace(arena, settings=settings)
        arena.settle()


def _replace(
    arena: Arena,
    *,
    kind: str | None = None,
    settings: Mapping[str, str] | None = None,
    gone_s: float = 0.0,
    is_empty: bool = False,
) -> None:
    """Kill the broker and start another, or itself, after `gone_s`."""
    brokers.kill(arena)
    if is_empty:
        brokers.empty(arena)
    if settings is not None:
        brokers.configure(arena, settings)
    time.sleep(gone_s)
    brokers.start(arena, kind or arena.setup.broker, {})


def _replace_in_round(
    arena: Arena,
    rng: random.Random,
    *,
    kind: str | None = None,
    settings: Mapping[str, str] | None = None,
    gone_s: float = 0.0,
    is_empty: bool = False,
) -> tuple[float, float]:
    """Open a round and replace the broker in it; returns when it was back and when the round closed."""
    moment = moment_of(arena, rng)
    trial = arena.open()
    await_(moment, "a moment of the round")
    _replace(arena, kind=kind, settings=settings, gone_s=gone_s, is_empty=is_empty)
    back = time.time()
    return back, trial.finish()


ROWS = (
    Row(
        number=4,
        fault="broker SIGKILL and restart, with and without persistence",
        how="process",
        holds="round ends, nothing counted twice",
        inject=broker_killed,
        setup=BROKERS,
        short_seeds=(1,),
    ),
    Row(
        number=5,
        fault="broker replaced by an empty one",
        how="new data folder",
        holds="the ends say again what it lost",
        inject=broker_replaced,
        setup=BROKERS,
    ),
    Row(
        number=6,
        fault="broker queue overflow",
        how="max_queued_messages 10, late acknowledgements, too much credit",
        holds="gaps repaired",
        inject=queue_overflows,
        setup=GREEDY,
    ),
    Row(
        number=14,
        fault="packet limit below the chunk size (20,480; 128 KiB; 1 MB)",
        how="max_packet_size of the broker that takes over, chunks of 256 KiB",
        holds="chunk shrinks, no reconnect loop",
        inject=packet_limit,
        setup=LARGE,
        expects=(r"cut the global model into chunks", r"refused: round \d+ is (closed|not open)"),
    ),
    Row(
        number=15,
        fault="Receive Maximum 1 and 10",
        how="max_inflight_messages of the broker that takes over",
        holds="completes",
        inject=receive_maximum,
        setup=BROKERS,
    ),
    Row(
        number=16,
        fault="brokers that speak 3.1.1 only",
        how="aedes, nats-server take over",
        holds="completes",
        inject=old_protocol,
        setup=BROKERS,
        short_seeds=(1,),
    ),
)
