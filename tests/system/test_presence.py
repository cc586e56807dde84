"""Devices that come and go around rounds, and the story that anybody with a plain MQTT client reads of it."""

import signal
import socket
from collections.abc import Iterator, Sequence

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from common.messages import DeviceStatus, encode_story
from common.topics import Kind, topic
from coordinator.rehearsal.federation import FEDERATION
from tests.system.conftest import LiveFederation, Onlooker, read_json

pytestmark = pytest.mark.system

EXAMPLES = {"rpi1": 7, "rpi2": 30}
LATER = "rpi3"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFederation]:
    """Two devices, and as many are wanted. Every test leaves `rpi1` and `rpi2` online."""
    training = {"seed": 0, "epochs": 2, "evaluate": False}
    with LiveFederation(tmp_path_factory.mktemp("presence"), EXAMPLES) as federation:
        federation.begin("mosquitto", {"sleep_s": 0.5}, training=training)
        federation.examples[LATER] = 11
        yield federation


def test_story_tells_presence_phases_progress_delivery_and_result(live: LiveFederation) -> None:
    with live.onlooker("fedpi/#") as onlooker:
        (row,) = live.run()
        live.processes["rpi1"].kill()
        live.until(lambda: live.states()["rpi1"] == "offline", "rpi1 stayed online")
        live.come("rpi1")
        back = ("The connection broke.", "rpi1 is waiting for a round.")
        live.until(lambda: tells(texts_of(onlooker), *back), "the return of rpi1 was not told")
    texts, n = texts_of(onlooker), row.round
    for device, count in EXAMPLES.items():
        assert tells(
            texts,
            "The coordinator is here.",
            f"Round {n} is open: 0 of 2 devices have checked in.",
            f"Round {n} is training: 0 of 2 devices have reported.",
            f"{device} has trained 1 of 2 epochs of round {n}.",
            f"{device} has trained 2 of 2 epochs of round {n}.",
            f"Round {n}: {device} delivered its update of {count} examples.",
            f"Round {n} is averaging 2 updates.",
            f"Round {n} made a new global model from 2 of 2 devices.",
            f"Round {n}: mean of the devices' own figures.",
        ), texts
        assert tells(texts, f"{device} is waiting for a round.", f"{device} is training, round {n}."), texts
    assert tells(texts, f"rpi1 is training, round {n}.", *back), texts


def test_device_that_joins_during_a_round_takes_part_in_the_next_one(live: LiveFederation) -> None:
    number = live.ask()
    live.until(lambda: live.trainings("rpi2", number), "rpi2 did not begin to train")
    live.processes["rpi2"].send(signal.SIGSTOP)  # the round waits for it
    live.add(LATER)
    live.until(lambda: live.states().get(LATER) == "online", f"{LATER} did not come online")
    live.processes["rpi2"].send(signal.SIGCONT)
    (row,) = live.finish(number)
    assert (row.phase, row.reported) == ("committed", ("rpi1", "rpi2"))

    live.leave("rpi1")
    (row,) = live.run()
    assert (row.phase, row.reported) == ("committed", ("rpi2", LATER))
    live.leave(LATER)
    live.come("rpi1")


def test_device_that_says_goodbye_during_selection_is_not_waited_for(live: LiveFederation) -> None:
    live.leave("rpi2")
    number = live.ask()
    live.until_logged("rpi1", f"now checking in, round {number}\n")
    live.leave("rpi1")
    assert live.phase(number) == "selecting"
    live.come("rpi2")
    live.add(LATER)
    (row,) = live.finish(number)
    assert (row.phase, row.invited, row.reported) == ("committed", ("rpi2", LATER), ("rpi2", LATER))
    live.leave(LATER)
    live.come("rpi1")


def test_late_will_of_an_old_connection_takes_no_device_offline(live: LiveFederation) -> None:
    status = topic(Kind.DEV_STATUS, FEDERATION, device="rpi1")
    will = encode_story(DeviceStatus(device="rpi1", nonce="01d", state="offline", text="The connection broke."))
    with live.onlooker(status) as onlooker:
        break_connection(live.port, status, will)
        live.until(lambda: will in [heard.payload for heard in onlooker.heard], "the broker did not publish the will")
        # What comes after it, from the same broker, tells that the coordinator has seen the will.
        stranger = topic(Kind.DEV_STATUS, FEDERATION, device="stranger")
        onlooker.say(stranger, encode_story(DeviceStatus(device="stranger", nonce="1", state="offline")))
        live.until(lambda: "stranger" in live.states(), "the coordinator did not see what came after the will")
    assert live.states()["rpi1"] == "online"


def texts_of(onlooker: Onlooker) -> list[str]:
    return [str(read_json(heard.payload).get("text")) for heard in onlooker.below("fedpi/")]


def tells(texts: Sequence[str], *expected: str) -> bool:
    """Whether the expected sentences are among the texts, in this order."""
    rest = iter(texts)
    return all(text in rest for text in expected)


def break_connection(port: int, name: str, will: bytes) -> None:
    """Connect with a will, and vanish without a goodbye."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
    client.will_set(name, will, qos=1, retain=True)
    client.connect("127.0.0.1", port)
    client.loop_start()
    connection = client.socket()
    assert isinstance(connection, socket.socket)
    connection.shutdown(socket.SHUT_RDWR)
    client.loop_stop()
