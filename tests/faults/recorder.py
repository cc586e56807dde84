"""Somebody at the broker who writes down what passes, and publishes it again later."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from broker.connection import Connection, Message, Session
from common import topics
from common.config import BrokerConfig
from common.messages import Hello
from common.topics import STORY_ROOT, WIRE_ROOT
from coordinator.rehearsal.federation import FEDERATION
from tests.faults import passing
from tests.faults.arena import Arena, NotSurvivedError

WINDOW = 20
QUIET_S, TIME_S = 0.3, 30.0
MOST = 100_000


class Recorder:
    """Hears all that passes below `filters` from `start` on; `stop` returns it."""

    def __init__(self, arena: Arena, *filters: str) -> None:
        self._filters = filters
        self._connection = Connection(BrokerConfig(port=arena.port), Session("recorder", "5"))

    def start(self) -> None:
        """Listen."""
        self._connection.__enter__()
        for name in self._filters:
            self._connection.subscribe(name)

    def stop(self) -> list[Message]:
        """Return what passed, in its order."""
        found = self._connection.collect(MOST, QUIET_S, TIME_S)
        self._connection.close()
        return found


def wire() -> tuple[str, ...]:
    """Return the filter of all that parties say to each other, chunks too."""
    return (f"{WIRE_ROOT}/{topics.VERSION}/{FEDERATION}/#",)


def everything() -> tuple[str, ...]:
    """Return the filters of the same, and of what parties state of themselves.

    Where nobody signs, a statement is anybody's, and devices follow the one that came last.
    """
    return *wire(), f"{STORY_ROOT}/{topics.VERSION}/{FEDERATION}/#"


def say_again(arena: Arena, recorded: Sequence[Message]) -> int:
    """Publish everything again, in its order; returns how many messages that are. Raises NotSurvivedError."""
    said = 0
    with Connection(BrokerConfig(port=arena.port), Session("again", "5")) as connection:
        for name, group in groupby(recorded, lambda message: message.topic):
            said += connection.publish_all(name, [message.payload for message in group], WINDOW, TIME_S)
    if said < len(recorded):
        raise NotSurvivedError(f"the broker took {said} of {len(recorded)} messages")
    return said


def without_second_hellos(recorded: Sequence[Message]) -> Iterator[Message]:
    """Leave out all but the first Hello of every connection.

    Where nobody signs, a Hello is anybody's: who says one of another process twice speaks as it, and ends the device
    as a second process would (docs/protocol.md, section 9).
    """
    seen: set[str] = set()
    for message in recorded:
        said = passing.message_in(message.topic, message.payload)
        if isinstance(said, Hello):
            if said.nonce in seen:
                continue
            seen.add(said.nonce)
        yield message


def kinds_of(recorded: Sequence[Message]) -> set[str]:
    """Return what kinds of messages were recorded."""
    return {type(passing.message_in(message.topic, message.payload)).__name__ for message in recorded}
