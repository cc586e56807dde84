"""Devices behind the rendered ACL on a real Mosquitto: what one sends, and what reaches the other."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from broker import accounts, install
from broker.connection import Connection, Session
from broker.settings import ServeConfig
from common.config import BrokerConfig
from common.errors import ConfigError
from common.topics import Kind, topic

FEDERATION = "lab"
QUIET_S = 0.3
Login = Callable[[str], Connection]
SECURITY = (Path(__file__).resolve().parents[2] / "docs/security.md").read_text(encoding="utf-8")
(OF_AN_APPLICATION,) = re.findall(r"^```\n(user camera1\n.*?)^```", SECURITY, re.MULTILINE | re.DOTALL)


def name(kind: Kind, device: str = "rpi1") -> str:
    return topic(kind, FEDERATION, device=device, blob="ab" * 32)


@pytest.fixture
def account(
    tmp_path: Path, free_port: int, launch_mosquitto: Callable[[Path, int], BrokerConfig]
) -> Callable[[str], BrokerConfig]:
    """Name the login of one of the users that `init` made, on a broker that runs what it rendered."""
    config = ServeConfig(folder=str(tmp_path), port=free_port, devices=("rpi1", "rpi2", "camera1"))
    install.init(config)
    (config.root / "acl").write_text((config.root / "acl").read_text() + OF_AN_APPLICATION.replace("brain", FEDERATION))
    broker = launch_mosquitto(config.root / "mosquitto.conf", free_port)

    def known(user: str) -> BrokerConfig:
        secret = str(accounts.secret_file(config.root, user))
        return msgspec.structs.replace(broker, username=user, password_file=secret)

    return known


@pytest.fixture
def login(account: Callable[[str], BrokerConfig]) -> Iterator[Login]:
    with ExitStack() as stack:
        yield lambda user: stack.enter_context(Connection(account(user), Session(f"test-{user}", "5")))


def test_wrong_password_is_refused(account: Callable[[str], BrokerConfig]) -> None:
    thief = msgspec.structs.replace(account("rpi1"), username="rpi2")
    with pytest.raises(ConfigError, match="refuses the login"), Connection(thief, Session("thief", "5")):
        pass


def test_command_reaches_its_device_only(login: Login) -> None:
    coordinator, rpi1, rpi2 = login("coordinator"), login("rpi1"), login("rpi2")
    for device in (rpi1, rpi2):
        # Mosquitto grants any subscription and filters what it delivers.
        device.subscribe(name(Kind.DEV_CMD, "rpi1"))
        device.subscribe(name(Kind.DEV_CMD, "+"))
    coordinator.publish(name(Kind.DEV_CMD, "rpi1"), b"for rpi1")
    assert {message.payload for message in rpi1.collect(9, QUIET_S, 3.0)} == {b"for rpi1"}
    assert rpi2.receive(QUIET_S) is None


def test_device_cannot_speak_for_another(login: Login) -> None:
    coordinator, rpi2 = login("coordinator"), login("rpi2")
    coordinator.subscribe("fedpi/#")
    coordinator.subscribe("fedpi-wire/#")
    for kind in (Kind.DEV_STATUS, Kind.DEV_EVENT, Kind.DEV_PREDICTION, Kind.DEV_SAY, Kind.DEV_UP):
        with pytest.raises(ConfigError, match="may not publish"):
            rpi2.publish(name(kind, "rpi1"), b"forged")
        rpi2.publish(name(kind, "rpi2"), b"own")
    for kind in (Kind.COORD_STATUS, Kind.COORD_ROUND, Kind.COORD_RELEASE, Kind.BLOB, Kind.DEV_CMD):
        with pytest.raises(ConfigError, match="may not publish"):
            rpi2.publish(name(kind, "rpi2"), b"forged")
    assert [message.payload for message in coordinator.collect(99, QUIET_S, 3.0)] == [b"own"] * 5


def test_device_cannot_listen_to_another(login: Login) -> None:
    rpi1, rpi2 = login("rpi1"), login("rpi2")
    rpi2.subscribe("#")
    for kind in (Kind.DEV_STATUS, Kind.DEV_EVENT, Kind.DEV_PREDICTION, Kind.DEV_SAY, Kind.DEV_UP):
        rpi1.publish(name(kind, "rpi1"), b"private")
    assert rpi2.receive(QUIET_S) is None


def test_every_device_hears_the_coordinator(login: Login) -> None:
    coordinator, rpi1, rpi2 = login("coordinator"), login("rpi1"), login("rpi2")
    for device in (rpi1, rpi2):
        device.subscribe(name(Kind.COORD_ROUND))
        device.subscribe(name(Kind.BLOB))
    coordinator.publish(name(Kind.COORD_ROUND), b"round")
    coordinator.publish(name(Kind.BLOB), b"chunk")
    for device in (rpi1, rpi2):
        assert [message.payload for message in device.collect(2, QUIET_S, 3.0)] == [b"round", b"chunk"]


def test_monitor_reads_the_story_and_says_nothing(login: Login) -> None:
    monitor, rpi1 = login("monitor"), login("rpi1")
    monitor.subscribe("#")
    rpi1.publish(name(Kind.DEV_EVENT), b"story")
    rpi1.publish(name(Kind.DEV_SAY), b"wire")
    assert [message.payload for message in monitor.collect(9, QUIET_S, 3.0)] == [b"story"]
    with pytest.raises(ConfigError, match="may not publish"):
        monitor.publish(name(Kind.DEV_EVENT, "monitor"), b"forged")


def test_nobody_asks_for_predictions_but_the_coordinator_and_an_application_that_is_let(login: Login) -> None:
    coordinator, rpi1, rpi2, camera1 = (login(user) for user in ("coordinator", "rpi1", "rpi2", "camera1"))
    rpi1.subscribe(name(Kind.DEV_INFER, "rpi1"))
    for stranger in (login("monitor"), rpi2):
        with pytest.raises(ConfigError, match="may not publish"):
            stranger.publish(name(Kind.DEV_INFER, "rpi1"), b"image")
    coordinator.publish(name(Kind.DEV_INFER, "rpi1"), b"1")
    camera1.publish(name(Kind.DEV_INFER, "rpi1"), b"2")
    assert [message.payload for message in rpi1.collect(9, QUIET_S, 3.0)] == [b"1", b"2"]
    camera1.subscribe("#")
    rpi1.publish(name(Kind.DEV_SAY, "rpi1"), b"wire")
    rpi1.publish(name(Kind.DEV_PREDICTION, "rpi1"), b"answer")
    assert [message.payload for message in camera1.collect(9, QUIET_S, 3.0)] == [b"answer"]
