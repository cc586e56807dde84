"""When onlookers are told: at once where a phase changes, at a pace otherwise, and all of it again on demand."""

from collections.abc import Callable
from typing import cast

import msgspec
import pytest

from common.chronicle import PastRounds, RoundMembers
from common.topics import Kind
from coordinator.collector import Collector
from coordinator.config import CoordinatorConfig, HomeAssistantConfig
from coordinator.onlookers import Onlookers
from coordinator.round_state import Round
from coordinator.store import DeviceRow, Store
from coordinator.voice import Voice

Play = Callable[..., Round]


class Heard:
    """Stands in for the voice, and keeps what it is to say."""

    def __init__(self) -> None:
        self.told: list[tuple[str, RoundMembers | PastRounds | bytes]] = []

    def onlookers(self, kind: Kind, document: RoundMembers | PastRounds) -> None:
        self.told.append((kind.value, document))

    def home_assistant(self, name: str, payload: bytes) -> None:
        self.told.append((name, payload))

    def names(self) -> list[str]:
        """What was said since the last time."""
        told, self.told = [name for name, _ in self.told], []
        return told


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def onlookers(config: CoordinatorConfig, journal: Store, heard: Heard) -> Onlookers:
    told = msgspec.structs.replace(config, home_assistant=HomeAssistantConfig(discovery=True))
    collector = Collector(config.folder / "updates", config.transfer)
    return Onlookers(told, journal, collector, cast("Voice", heard))


def test_a_new_phase_is_told_at_once_and_the_same_one_at_a_pace(onlookers: Onlookers, heard: Heard, play: Play) -> None:
    onlookers.look(play(1, silent=["rpi1"], goal=2, is_over=False))
    assert heard.names() == ["coord/members"]
    training = play(1, reported={"rpi1": {}}, silent=["rpi2"], is_over=False)
    onlookers.look(training)
    onlookers.look(training)
    assert heard.names() == ["coord/members"]


def test_a_round_that_is_over_joins_the_past_ones(onlookers: Onlookers, heard: Heard, play: Play) -> None:
    for number in (1, 2):
        onlookers.look(play(number, reported={"rpi1": {}, "rpi2": {}}))
    past = [document for _, document in heard.told if isinstance(document, PastRounds)]
    assert [[row.round for row in document.rounds] for document in past] == [[1], [1, 2]]


def test_everything_is_said_again_after_a_broker_came_back_empty(
    onlookers: Onlookers, heard: Heard, play: Play, journal: Store
) -> None:
    onlookers.everything()
    assert heard.names() == ["coord/rounds", "homeassistant/device/fedpi-brain/config"]
    journal.see_devices([DeviceRow(device="rpi1", state="online", doing="", release="", seen=1.0)])
    onlookers.look(play(1, reported={"rpi1": {}, "rpi2": {}}))
    heard.names()
    onlookers.everything()
    assert heard.names() == [
        "coord/rounds",
        "coord/members",
        "homeassistant/device/fedpi-brain/config",
        "homeassistant/device/fedpi-brain-dev-rpi1/config",
    ]
