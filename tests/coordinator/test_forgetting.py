"""A device that people take out: of the lists at once, of the broker as soon as a coordinator is connected to it."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from common.messages import DeviceStatus
from common.topics import Address, Kind, parse, topic
from coordinator import metrics, views
from coordinator.cli import main
from coordinator.config import CoordinatorConfig
from coordinator.forgetting import Forgetting
from coordinator.home_assistant import discovery, discovery_topic
from coordinator.lock import serving
from coordinator.reception import Reception
from coordinator.round_state import Round
from coordinator.store import DeviceRow, Store
from coordinator.watching import Forgotten, Picture, news, read, take

Play = Callable[..., Round]
STATUS = topic(Kind.DEV_STATUS, "brain", device="rpi2")


class Voice:
    """Records what would be taken out of the broker."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.is_connected = False
        self.is_acknowledged = False

    def forget(self, device: str) -> None:
        self.said.append(device)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def see(journal: Store, *devices: str, state: str = "offline") -> None:
    journal.see_devices([DeviceRow(device=d, state=state, doing="", release="", seen=1.0) for d in devices])


@pytest.fixture
def voice() -> Voice:
    return Voice()


@pytest.fixture
def reception(journal: Store) -> Reception:
    return Reception("brain", journal)


@pytest.fixture
def forgetting(journal: Store, reception: Reception, voice: Voice) -> Forgetting:
    return Forgetting(journal, reception, voice)  # type: ignore[arg-type]  # all that it needs of a Voice


def test_a_forgotten_device_is_in_no_list_and_its_rounds_stay(config_path: Path, journal: Store, play: Play) -> None:
    play(1, reported={"rpi1": {}, "rpi2": {}})
    see(journal, "rpi1", "rpi2")
    result = run("forget", "rpi2", "--config", config_path)
    assert result.stdout == "rpi2 is forgotten. Its documents leave the broker once a coordinator is served.\n"
    assert [view.device for view in views.devices(journal)] == ["rpi1"]
    assert not [labels for _, labels, _ in metrics.samples(journal) if labels.get("device") == "rpi2"]
    assert [entry.device for entry in journal.ledger(1)] == ["rpi1", "rpi2"]
    see(journal, "rpi2")  # it came back
    assert [(view.device, view.reported) for view in views.devices(journal)] == [("rpi1", 1), ("rpi2", 1)]


def test_a_name_that_nobody_knows_is_wrong_use(config_path: Path, journal: Store) -> None:
    see(journal, "rpi1")
    result = run("forget", "rpi7", "--config", config_path)
    assert (result.exit_code, result.stderr) == (2, "main: no device rpi7 is known; known are: rpi1\n")
    assert journal.to_forget() == []


def test_a_device_that_is_connected_is_told_to_come_back(
    config: CoordinatorConfig, config_path: Path, journal: Store
) -> None:
    see(journal, "rpi1", state="online")
    with serving(config.folder):
        result = run("forget", "rpi1", "--config", config_path, "--json")
    assert json.loads(result.stdout) == {"device": "rpi1", "was": "online", "is_served": True}


def test_the_broker_is_told_until_it_has_acknowledged(journal: Store, forgetting: Forgetting, voice: Voice) -> None:
    see(journal, "rpi1", "rpi2")
    journal.forget("rpi2")
    forgetting.look()
    assert voice.said == []  # no connection: it would be lost
    voice.is_connected = True
    forgetting.begin_anew()
    forgetting.look()
    assert (voice.said, journal.to_forget()) == (["rpi2"], ["rpi2"])
    forgetting.begin_anew()  # the connection broke before the acknowledgement
    assert voice.said == ["rpi2", "rpi2"]
    voice.is_acknowledged = True
    forgetting.look()
    assert (len(voice.said), journal.to_forget()) == (2, [])


def test_what_the_service_has_heard_before_makes_nobody_known_again(
    journal: Store, forgetting: Forgetting, reception: Reception, voice: Voice
) -> None:
    status = DeviceStatus(device="rpi2", nonce="ab", state="offline", text="gone")
    reception.admit(address_of(STATUS), msgspec.json.encode(status), None)
    reception.flush()
    journal.forget("rpi2")
    reception.admit(
        address_of(STATUS), msgspec.json.encode(status), None
    )  # the command came before this was written down
    voice.is_connected = voice.is_acknowledged = True
    for _ in range(2):
        forgetting.look()
    reception.flush()
    assert journal.devices() == []


def test_the_empty_document_breaks_no_protocol(reception: Reception) -> None:
    arrival = reception.admit(address_of(STATUS), b"", None)
    assert (arrival.event, reception.refused) == (None, 0)


def test_who_watches_sees_the_device_go() -> None:
    status = DeviceStatus(device="rpi2", nonce="ab", state="online", text="rpi2 is here.")
    picture = take(Picture("brain"), status, 1.0)
    gone = read(STATUS, b"", "brain")
    assert gone == Forgotten("rpi2")
    assert news(picture, gone) == "rpi2 was taken out."
    assert take(picture, gone, 2.0).devices == {}


def test_home_assistant_is_told_on_the_topic_that_the_device_had() -> None:

    topics = [name for name, _ in discovery("brain", ["rpi2"])]
    assert topics[1] == discovery_topic("brain", "rpi2")


def address_of(name: str) -> Address:

    return parse(name)
