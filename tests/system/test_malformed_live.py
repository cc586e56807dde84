"""Nonsense on every topic while rounds run: it changes nothing but counters and log lines."""

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack
import msgspec
import pytest

from common.chronicle import PastRounds, RoundMembers
from common.coordinators import Probe
from common.errors import PeerError
from common.messages import (
    CheckIn,
    Chunk,
    CoordinatorStatus,
    DeviceStatus,
    Prediction,
    Receipt,
    Ref,
    ReleaseStatus,
    RoundStatus,
    StoryEvent,
    decode,
    decode_story,
    encode,
)
from common.topics import STORY_ROOT, TABLE, Kind, topic
from coordinator.rehearsal.federation import FEDERATION
from tests.system.conftest import WAIT_S, Heard, LiveFederation, Onlooker

pytestmark = pytest.mark.system

EXAMPLES = {"rpi1": 7, "rpi2": 30}
FALSE = "does not have the digest that its head lists"
MOST_ROUNDS = 10
PASSES = 4
GROWTH_MB = 30.0
CHUNK_BYTES, MIB = 2**16, 2**20
READERS = {
    "coordinator": {Kind.COORD_PEER, Kind.DEV_SAY, Kind.DEV_STATUS, Kind.DEV_UP},
    "rpi1": {Kind.COORD_STATUS, Kind.COORD_ROUND, Kind.COORD_RELEASE, Kind.DEV_CMD},
    "rpi2": {Kind.COORD_STATUS, Kind.COORD_ROUND, Kind.COORD_RELEASE},
}
"""Who reads what of the nonsense, where what is for a device is for rpi1."""
STORIES = ("fedpi/+/+/coord/status", "fedpi/+/+/dev/+/status", "fedpi/+/+/dev/+/prediction")
REF = Ref(id="ab" * 32, head_bytes=100, size=1000, chunk_bytes=CHUNK_BYTES)
HAPPENED = StoryEvent(event="something", text="It happened.")
HONEST: Mapping[Kind, msgspec.Struct] = {
    Kind.COORD_STATUS: CoordinatorStatus(federation=FEDERATION, epoch="ab", state="online"),
    Kind.COORD_ROUND: RoundStatus(epoch="ab", round=1, phase="selecting", model=REF),
    Kind.COORD_RELEASE: ReleaseStatus(release="r1", model=REF, labels=("no", "yes"), round=1),
    Kind.COORD_EVENT: HAPPENED,
    Kind.COORD_MEMBERS: RoundMembers(round=1),
    Kind.COORD_ROUNDS: PastRounds(),
    Kind.DEV_STATUS: DeviceStatus(device="rpi1", nonce="ab", state="online"),
    Kind.DEV_EVENT: HAPPENED,
    Kind.DEV_PREDICTION: Prediction(device="rpi1", request="ab", ok=True),
    Kind.COORD_PEER: Probe(process="ab", nonce="cd"),
    Kind.BLOB: Chunk(blob=REF.id, index=0, data=b"0123"),
    Kind.DEV_UP: Chunk(blob=REF.id, index=0, data=b"0123"),
    Kind.DEV_SAY: CheckIn(device="rpi1", round=1, generation="ab"),
    Kind.DEV_CMD: Receipt(device="rpi1", round=1, generation="ab", update=REF.id),
    Kind.DEV_INFER: HAPPENED,  # any document: none is an image
}
"""A valid message of each kind, to be spoilt."""


class Nonsense(NamedTuple):
    """What no reader of the topic can make sense of."""

    kind: Kind
    topic: str
    payload: bytes
    is_retained: bool = False


class Forger(Onlooker):
    """Answers every chunk with a false one: the number of a chunk that is still to come, and bytes that are not its."""

    def hear(self, heard: Heard) -> None:
        chunk = decode(heard.payload, Chunk)
        if heard not in self.heard and len(chunk.data) == CHUNK_BYTES:
            forged = msgspec.structs.replace(chunk, index=chunk.index + 5, data=chunk.data[::-1])
            self.heard.append(Heard(heard.topic, encode(forged)))
            self.say(heard.topic, encode(forged))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFederation]:
    """Few chunks are on their way at a time, so that a false one may arrive before the true one."""
    transfer = {"chunk_bytes": CHUNK_BYTES, "credit_chunks": 4, "window_chunks": 2, "repair_s": 0.5}
    with LiveFederation(tmp_path_factory.mktemp("malformed"), EXAMPLES) as federation:
        devices = {device: {"transfer": transfer} for device in EXAMPLES}
        federation.begin("mosquitto", {"sleep_s": 0.5}, devices, transfer=transfer)
        federation.serve("rpi1")
        yield federation


def test_false_chunks_of_true_blobs_count_for_nothing(live: LiveFederation) -> None:
    model, unspoilt = live.model(), {"coordinator", *EXAMPLES}
    with Forger(live.port, "fedpi-wire/+/+/blob/#", "fedpi-wire/+/+/dev/+/up"):
        for _ in range(MOST_ROUNDS):
            for row in live.run(2):
                assert row.phase == "committed"
                model = live.expect(model, row.round)
            assert live.model() == model
            # A false chunk may come when the true one is here, and of those that are refused a log tells one a second.
            unspoilt -= {name for name in unspoilt if FALSE in live.log(name)}
            if not unspoilt:
                break
    assert not unspoilt, "these were sent no false chunk in time"


def test_nonsense_on_every_topic_changes_nothing_but_counters(live: LiveFederation) -> None:
    with live.onlooker("fedpi-wire/#") as onlooker:
        live.run()  # an honest round, whose messages are stale from then on
    stale = [*onlooker.heard, *misplaced(onlooker.heard)]
    model, coordinator = live.model(), live.processes["coordinator"]
    before_mb = coordinator.peak_mb()

    with live.onlooker(*STORIES) as onlooker:
        first = live.ask(100)
        said: Counter[Kind] = Counter()
        for _ in range(PASSES):
            said.update(shout(onlooker, [*nonsense(live), *stale]))
        live.store.stop_runs(now=False)
        live.until(lambda: live.store.active_run() is None, "the run did not stop")
        rows = [*live.store.rounds(first - 1), *live.run()]  # the end of the last one tells the counters
        for reader, kinds in READERS.items():
            enough = sum(said[kind] for kind in kinds)
            live.until(lambda: refused(onlooker, reader) >= enough, f"{reader} did not count {enough} messages")  # noqa: B023
        live.until(lambda: len(predictions(onlooker)) == said[Kind.DEV_INFER], "an image was not answered")
    assert not any(prediction.ok for prediction in predictions(onlooker))
    assert {row.phase for row in rows} == {"committed"}
    for row in rows:
        model = live.expect(model, row.round)
    assert live.model() == model
    assert coordinator.peak_mb() - before_mb < GROWTH_MB
    live.check()


def shout(onlooker: Onlooker, pieces: Sequence[Nonsense | Heard]) -> Counter[Kind]:
    """Say all of it as fast as the broker takes it; counts the nonsense by what its topic carries."""
    sent = [onlooker.say(p.topic, p.payload, retain=isinstance(p, Nonsense) and p.is_retained) for p in pieces]
    for info in sent:
        info.wait_for_publish(WAIT_S)
    return Counter(piece.kind for piece in pieces if isinstance(piece, Nonsense))


def nonsense(live: LiveFederation) -> Iterator[Nonsense]:
    """What no reader can make sense of, for every topic."""
    ref = live.store.global_model()
    assert ref is not None
    for row in TABLE:
        name = topic(row.kind, FEDERATION, device="rpi1", blob=ref.id)
        honest = msgspec.to_builtins(HONEST[row.kind], builtin_types=(bytes,))
        pack = msgspec.json.encode if name.startswith(STORY_ROOT + "/") else msgpack.packb
        yield from (Nonsense(row.kind, name, payload, row.retained) for payload in spoilt(honest, pack))


def spoilt(honest: dict[str, Any], pack: Any) -> Iterator[bytes]:
    """Yield payloads that are empty, random, nested, of wrong types, cut off, run on, or too large."""
    rng, packed = random.Random(0), pack(honest)
    yield from (rng.randbytes(size) for size in (0, 1, 100, 10_000, MIB))
    yield from (b"[" * MIB, b"\x91" * MIB, pack(None), pack([honest]), pack("text"))
    yield pack({key: [] for key in honest})
    yield from (packed[:-1], packed[: len(packed) // 2], packed + b"\xc1")
    yield pack({**honest, "text": "x" * (MIB - 1000)})


def misplaced(heard: Sequence[Heard]) -> Iterator[Heard]:
    """Yield each device's messages as if they were the other one's."""
    other = {"rpi1": "rpi2", "rpi2": "rpi1"}
    for message in heard:
        if "/dev/" in message.topic:
            yield Heard(re.sub("rpi[12]", lambda found: other[found[0]], message.topic), message.payload)


def refused(onlooker: Onlooker, reader: str) -> int:
    """How many messages a process said to have dropped."""
    known = CoordinatorStatus if reader == "coordinator" else DeviceStatus
    kind = Kind.COORD_STATUS if reader == "coordinator" else Kind.DEV_STATUS
    said = [read(heard, known) for heard in onlooker.below(topic(kind, FEDERATION, device=reader))]
    return max((status.refused for status in said if status is not None), default=0)


def predictions(onlooker: Onlooker) -> list[Prediction]:
    said = [read(heard, Prediction) for heard in onlooker.below("fedpi/") if heard.topic.endswith("/prediction")]
    return [prediction for prediction in said if prediction is not None]


def read(heard: Heard, kind: Any) -> Any:
    try:
        return decode_story(heard.payload, kind)
    except PeerError:
        return None  # our own nonsense
