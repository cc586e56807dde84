"""What else happens in a round while a fault befalls it: who is silent, absent or refused."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

from common.messages import CheckIn, Invite
from common.topics import Kind
from tests.faults import victims
from tests.faults.arena import DEVICES, Arena, Trial
from tests.faults.launcher import Fault
from tests.faults.passing import COORDINATOR, Match, Passing, Watch, Way, carries

DEAF = DEVICES[:3]
"""Those that a scenario keeps out: one of them leaves enough for a round, three do not."""
TRIGGER_S = 30.0
Scenario: TypeAlias = Callable[[Arena], AbstractContextManager[tuple[Trial, set[str]]]]
"""Opens a round; yields it, and the devices that it must count."""


@contextmanager
def plain(arena: Arena) -> Iterator[tuple[Trial, set[str]]]:
    """All five take part."""
    yield arena.open(), set(DEVICES)


@contextmanager
def one_absent(arena: Arena) -> Iterator[tuple[Trial, set[str]]]:
    """One does not check in: the round begins without it when the time for that is up."""
    _lose(arena, CheckIn, DEAF[:1])
    yield arena.open(), set(DEVICES) - set(DEAF[:1])


@contextmanager
def three_absent(arena: Arena) -> Iterator[tuple[Trial, set[str]]]:
    """Too few check in: the round is void."""
    _lose(arena, CheckIn, DEAF)
    yield arena.open(), set()


@contextmanager
def one_late(arena: Arena) -> Iterator[tuple[Trial, set[str]]]:
    """One never hears its invitation: the round closes at its deadline."""
    _lose(arena, Invite, DEAF[:1])
    yield arena.open(), set(DEVICES) - set(DEAF[:1])


@contextmanager
def three_late(arena: Arena) -> Iterator[tuple[Trial, set[str]]]:
    """Three never hear their invitations: too few report."""
    _lose(arena, Invite, DEAF)
    yield arena.open(), set()


@contextmanager
def one_invited_again(arena: Arena) -> Iterator[tuple[Trial, set[str]]]:
    """One hears its second invitation only."""
    _lose(arena, Invite, DEAF[:1], times=1)
    yield arena.open(), set(DEVICES)


@contextmanager
def cancelled(arena: Arena) -> Iterator[tuple[Trial, set[str]]]:
    """The operator abandons the round while nobody has heard an invitation."""
    _lose(arena, Invite, DEVICES)
    said = arena.proxy.watch(carries(Kind.DEV_CMD, Way.UP))
    trial = arena.open()
    said.came.wait(TRIGGER_S)
    arena.store.stop_runs(now=True)
    yield trial, set()


@contextmanager
def one_failing(arena: Arena) -> Iterator[tuple[Trial, set[str]]]:
    """One cannot train."""
    with changed(arena, DEAF[0], data={"loader": "tests.faults.sites:no_site"}):
        yield arena.open(), set(DEVICES[1:])


@contextmanager
def one_refused(arena: Arena) -> Iterator[tuple[Trial, set[str]]]:
    """One claims more examples than the round allows."""
    with changed(arena, DEAF[0], data={"options": {"count": 200_000}}):
        yield arena.open(), set(DEVICES[1:])


@contextmanager
def one_spoilt(arena: Arena) -> Iterator[tuple[Trial, set[str]]]:
    """One delivers an update with a number that is none."""
    victims.launch(arena, DEAF[0])
    arena.settle()
    victims.arm(arena, DEAF[0], Fault("updates.add before", action="spoil"))
    yield arena.open(), set(DEVICES[1:])


@contextmanager
def changed(arena: Arena, device: str, **sections: Any) -> Iterator[None]:
    """Run a device with other options, and as before afterwards."""
    before = arena.config(device).read_text(encoding="utf-8")
    victims.reconfigure(arena, device, **sections)
    restart(arena, device)
    arena.settle()
    try:
        yield
    finally:
        arena.config(device).write_text(before, encoding="utf-8")
        restart(arena, device)


def restart(arena: Arena, device: str) -> None:
    """End a device at once, and start it again."""
    arena.processes.pop(device).kill()
    arena.start_device(device)


def govern(arena: Arena, **rules: float) -> None:
    """Let other rules hold for the rounds to come."""
    if any(getattr(arena.options.round, name) != value for name, value in rules.items()):
        victims.reconfigure(arena, COORDINATOR, round=rules)
        arena.processes.pop(COORDINATOR).kill()
        arena.start_coordinator()
        arena.settle()


def moment_of(arena: Arena, rng: random.Random) -> Watch:
    """Watch for one of the messages that every round has."""
    chunks = arena.setup.model_bytes // arena.setup.chunk_bytes * len(DEVICES)
    moments: Sequence[tuple[Match, int]] = (
        (carries(Kind.COORD_ROUND, Way.UP), 2),
        (carries(Kind.DEV_SAY, Way.UP), len(DEVICES)),
        (carries(Kind.DEV_CMD, Way.UP), len(DEVICES)),
        (carries(Kind.DEV_UP, Way.UP), chunks),
        (carries(Kind.DEV_UP, Way.DOWN), chunks - 1),
    )
    match, most = rng.choice(moments)
    return arena.proxy.watch(match, rng.randint(1, most))


def _lose(arena: Arena, kind: type[CheckIn | Invite], devices: tuple[str, ...], times: int = 1_000_000) -> None:
    """Let the broker lose messages of a kind that devices say or are told, the first `times` of them."""
    left = [times]

    def meddle(passing: Passing, packet: bytes) -> list[tuple[float, bytes]]:
        if passing.way is Way.UP and left[0] and _is(passing, kind, devices):
            left[0] -= 1
            return []
        return [(0.0, packet)]

    arena.proxy.meddle(meddle)


def _is(passing: Passing, kind: type[CheckIn | Invite], devices: tuple[str, ...]) -> bool:
    message = passing.message if passing.kind in {Kind.DEV_SAY, Kind.DEV_CMD} else None
    return isinstance(message, kind) and message.device in devices
