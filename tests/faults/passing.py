"""What passes the proxy: who said what on which connection, what to wait for, and how much was said twice."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from common import topics
from common.coordinators import Alive, Probe
from common.errors import PeerError
from common.messages import Chunk, Command, Say, Signed, decode
from common.topics import Kind
from tests.faults.packets import Publish

COORDINATOR = "coordinator"
CONTROL, BULK = "control", "bulk"
_CARRIED: dict[Kind, object] = {
    Kind.DEV_SAY: Say,
    Kind.DEV_CMD: Command,
    Kind.DEV_UP: Chunk,
    Kind.BLOB: Chunk,
    Kind.COORD_PEER: Probe | Alive,
}
_CLIENT_ID = re.compile(r"fedpi-.+?-(?:coord|dev-(?P<device>.+?))-(?P<link>control|bulk)(?:-|\Z)")


class Way(StrEnum):
    """The direction of a packet."""

    UP = "to the broker"
    DOWN = "from the broker"


@dataclass(frozen=True)
class Passing:
    """A PUBLISH on a connection: the party that holds it (`coordinator` or a device), which of its links, which way."""

    party: str
    link: str
    way: Way
    publish: Publish

    @property
    def kind(self) -> Kind | None:
        """What its topic carries; None for a topic that is not fedpi's."""
        try:
            return topics.parse(self.publish.topic).kind
        except PeerError:
            return None

    @property
    def message(self) -> object:
        """The message of `say`, `cmd`, `coord/peer` or a chunk; None for anything else."""
        return message_in(self.publish.topic, self.publish.payload)


Match: TypeAlias = Callable[[Passing], bool]
Meddler: TypeAlias = Callable[[Passing, bytes], Sequence[tuple[float, bytes]]]
"""Takes a PUBLISH and its packet; returns the packets to send instead, each with seconds to hold it back.

`[(0.0, packet)]` changes nothing, `[]` loses it as a broker would (its sender gets the PUBACK), two entries repeat
it, and whatever is held back is overtaken by what comes after it.
"""


@dataclass
class Watch:
    """Waits for the `nth` PUBLISH that matches; `at` is when it came, in Unix seconds."""

    match: Match
    nth: int = 1
    at: float = 0.0
    seen: int = 0
    came: threading.Event = field(default_factory=threading.Event)

    def look(self, passing: Passing) -> bool:
        """Take note of a PUBLISH; returns whether it is the one."""
        if self.came.is_set() or not self.match(passing):
            return False
        self.seen += 1
        if self.seen < self.nth:
            return False
        self.at = time.time()
        self.came.set()
        return True


@dataclass
class Cut(Watch):
    """Resets the connection inside the packet that it waits for, after `share` (0 to 1) of its bytes."""

    share: float = 0.5


@dataclass
class Tally:
    """Bytes of chunks that parties handed to the broker although they had handed them over before."""

    resent: Counter[str] = field(default_factory=Counter)
    """Bytes by topic."""
    _known: Counter[tuple[str, str, int]] = field(default_factory=Counter)

    @property
    def resent_bytes(self) -> int:
        """Of all topics together."""
        return self.resent.total()

    def count(self, passing: Passing) -> None:
        """Count a PUBLISH on its way up, if it carries a chunk."""
        if passing.way is not Way.UP or passing.kind not in {Kind.BLOB, Kind.DEV_UP}:
            return
        try:
            chunk = decode(passing.publish.payload, Chunk)
        except PeerError:
            return
        key = (passing.publish.topic, chunk.blob, chunk.index)
        if self._known[key]:
            self.resent[key[0]] += len(chunk.data)
        self._known[key] += 1


def whose(client_id: str) -> tuple[str, str]:
    """Name party and link of a client id, as the protocol lists them; an unknown one stands for itself."""
    if (match := _CLIENT_ID.match(client_id)) is None:
        return client_id, ""
    return match["device"] or COORDINATOR, match["link"]


def carries(kind: Kind, way: Way, party: str | None = None) -> Match:
    """Match what is of this kind and goes this way, on the connections of one party or of any."""
    return lambda passing: passing.way is way and passing.kind is kind and party in {None, passing.party}


def message_in(topic: str, payload: bytes) -> object:
    """Return the msgpack message of a payload, out of its envelope where it is signed; None where there is none."""
    try:
        carried = _CARRIED.get(topics.parse(topic).kind)
        return None if carried is None else decode(_opened(payload), carried)
    except PeerError:
        return None


def _opened(payload: bytes) -> bytes:
    try:
        signed = decode(payload, Signed)
    except PeerError:
        return payload
    return bytes(signed.body)
