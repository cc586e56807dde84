"""What a coordinator does about another one, told by `rivals`: who is silent, and what is said again. No broker."""

from itertools import count

import pytest

from common.coordinators import Alive, Probe
from common.packing import pack
from coordinator import rivals
from coordinator.config import CoordinatorConfig
from coordinator.rival_watch import RivalWatch
from coordinator.store import Store

OTHER = "b0"


class Voice:
    """Keeps what is said to other coordinators, and what it is told to do."""

    epoch = "a0"

    def __init__(self) -> None:
        self.is_silent = True
        self.others = 0
        self.probes: list[Probe] = []
        self.said_again = 0

    def listen_to_coordinators(self) -> None: ...

    def to_coordinators(self, message: Probe | Alive) -> None:
        if isinstance(message, Probe):
            self.probes.append(message)

    def read_coordinator(self, payload: bytes) -> tuple[bytes, int]:
        return payload, 0

    def sign_above(self, _heard: int) -> None: ...

    def again(self) -> None:
        self.said_again += 1


@pytest.fixture
def voice() -> Voice:
    return Voice()


@pytest.fixture
def watch(config: CoordinatorConfig, journal: Store, voice: Voice) -> RivalWatch:
    """One that runs since the time 0, and has asked."""
    found = RivalWatch(config, journal, voice, takes_over=False)  # type: ignore[arg-type]  # as much of it as is used
    begin = -rivals.SILENCE_S
    found.connected("control", begin)
    found.receive(pack(voice.probes[-1]), begin)  # the broker carries it
    found.tick(0.0)
    assert found.may_speak
    return found


def test_what_the_broker_retains_is_said_again_once_the_other_coordinator_is_gone(
    watch: RivalWatch, voice: Voice
) -> None:
    """The other one has retained documents of its own in their place, which nobody here has heard of."""
    told = voice.said_again
    watch.connected("control", 1.0)
    watch.receive(encode_alive(voice.probes[-1]), 1.0)
    assert watch.is_met
    assert watch.tick(1.0)
    assert (voice.others, voice.said_again) == (1, told)  # while both run neither insists
    times = (1.0 + rivals.GONE_S + step for step in count())
    while not watch.tick(next(times)):
        pass
    assert not watch.is_met
    assert (voice.others, voice.said_again) == (0, told + 1)


def encode_alive(probe: Probe) -> bytes:
    return pack(Alive(process=OTHER, nonce=probe.nonce, stage="running"))
