"""Row 8: chunks that are not what they claim to be."""

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from common.messages import Chunk, decode, encode
from common.topics import Kind
from tests.faults import packets
from tests.faults.arena import DEVICES, Arena, NotSurvivedError
from tests.faults.passing import COORDINATOR, Passing, Way, carries
from tests.faults.row import Outcome, Row

REFUSED = r"refused=\d+ topic=fedpi-wire\S+ .*(digest|wrong place or length|not a valid message)"


def _flipped(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


FORGERIES: Mapping[str, Callable[[bytes, random.Random], bytes]] = {
    "corrupted": _flipped,
    "truncated": lambda data, rng: data[: rng.randrange(len(data))],
    "oversized": lambda data, rng: data + rng.randbytes(rng.choice([1, 1000, 2**18])),
    "of another digest": lambda data, rng: rng.randbytes(len(data)),
}


@dataclass
class Forger:
    """Puts false chunks in the place of some of those of `kind` that pass `party` on the way `way`."""

    rng: random.Random
    party: str
    kind: Kind
    way: Way
    most: int
    forged: list[str] = field(default_factory=list)
    last_at: float = 0.0

    def __call__(self, passing: Passing, packet: bytes) -> list[tuple[float, bytes]]:
        if not carries(self.kind, self.way, self.party)(passing) or len(self.forged) >= self.most:
            return [(0.0, packet)]
        if self.forged and self.rng.random() < 0.7:  # the first one always
            return [(0.0, packet)]
        chunk, name = decode(passing.publish.payload, Chunk), self.rng.choice([*FORGERIES, "cut"])
        if name == "cut":
            payload = passing.publish.payload[: self.rng.randrange(len(passing.publish.payload))]
        else:
            payload = encode(replace(chunk, data=FORGERIES[name](chunk.data, self.rng)))
        self.forged.append(name)
        self.last_at = time.time()
        return [(0.0, packets.with_payload(packet, passing.publish, payload))]


def false_chunks(arena: Arena, rng: random.Random) -> Outcome:
    """Forge up to ten chunks of a device's update, or of the model on its way to a device."""
    device, is_update = rng.choice(DEVICES), rng.random() < 0.5
    kind, way = (Kind.DEV_UP, Way.UP) if is_update else (Kind.BLOB, Way.DOWN)
    forger, before = Forger(rng, device, kind, way, rng.randint(1, 10)), arena.log_sizes()
    arena.proxy.meddle(forger)
    trial = arena.open(rounds=1 if is_update else 2)
    closed = trial.finish()
    arena.proxy.meddle(None)
    victim = COORDINATOR if is_update else device
    if not forger.forged or not re.search(REFUSED, arena.logged(victim, before)):
        raise NotSurvivedError(f"{victim} refused nothing of {forger.forged}")
    note = f"{'update of' if is_update else 'model for'} {device}: {', '.join(forger.forged)}"
    return Outcome(max(closed - forger.last_at, 0.0), arena.proxy.tally.resent_bytes, note)


ROWS = (
    Row(
        number=8,
        fault="corrupted, truncated, oversized chunk; wrong digest",
        how="proxy forges them",
        holds="refused, asked again, counted",
        inject=false_chunks,
        short_seeds=(0, 1),
    ),
)
