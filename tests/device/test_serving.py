import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from common.config import BrokerConfig
from common.topics import Kind, topic
from device.serving import NOT_YET, name_of
from tests.device.requesting import Install, Model, Png, Rig

pytestmark = pytest.mark.system


@pytest.mark.parametrize("kind", ["mosquitto", "embedded"])
def test_mqtt_5_answers_on_the_response_topic_with_the_correlation_data(
    kind: str, start_mosquitto: Callable[[str], BrokerConfig], embedded_broker: BrokerConfig, rig: Rig, png: Png
) -> None:
    # Not the shared Mosquitto: its ACL, as any that fedpi renders, confines answers to the prediction topic.
    rig.speak_to(start_mosquitto("") if kind == "mosquitto" else embedded_broker)
    rig.install("r1")
    rig.start("serve")
    requester = rig.requester()
    requester.wait_until_served("r1", png(1))
    answer_to = f"answers/{rig.config.federation}/mine"

    for number, grey in enumerate((0, 255)):
        requester.ask(png(grey), answer_to, f"request {number}".encode())
        answer = requester.answer()
        assert (answer.topic, answer.correlation) == (answer_to, f"request {number}".encode())
        prediction = answer.prediction
        assert prediction.label == ("no", "yes")[number]
        assert prediction.probability == pytest.approx(1 / (1 + 2.718281828 ** (-0.05 * (grey - 127.5))), abs=1e-4)
        assert prediction.request == name_of(png(grey))
        assert (prediction.ok, prediction.device, prediction.release) == (True, "rpi1", "r1")
        assert 0 < prediction.milliseconds < 1000

    requester.ask(png(0), answer_to)
    assert requester.answer().correlation is None


def test_mqtt_3_1_1_answers_on_the_prediction_topic(rig: Rig, png: Png) -> None:
    rig.install("r1")
    rig.speak_to(msgspec.structs.replace(rig.config.broker, protocol="3.1.1"))
    rig.start("serve")
    requester = rig.requester(MQTTProtocolVersion.MQTTv311)
    requester.wait_until_served("r1", png(1))

    requester.ask(png(255))
    answer = requester.answer()

    assert answer.topic == requester.topic(Kind.DEV_PREDICTION)
    assert (answer.prediction.label, answer.prediction.request) == ("yes", name_of(png(255)))


def test_an_application_of_protocol_1_is_answered_by_its_own_topics(rig: Rig, png: Png) -> None:
    # By the shared Mosquitto, whose ACL `fedpi-broker init` renders alike.
    rig.install("r1")
    rig.start("serve")
    requester = rig.requester(version="1")
    requester.wait_until_served("r1", png(1))

    requester.ask(png(255))
    answer = requester.answer()

    assert answer.topic == f"fedpi/1/{rig.config.federation}/dev/rpi1/prediction"
    assert (answer.prediction.label, answer.prediction.request) == ("yes", name_of(png(255)))


def test_what_cannot_be_classified_is_answered_with_the_reason(rig: Rig, png: Png) -> None:
    rig.start("serve")
    requester = rig.requester()
    requester.wait_until_served("", png(1))

    requester.ask(png(1))
    assert requester.answer().prediction.text == NOT_YET

    rig.install("r1")
    requester.wait_until_served("r1", png(1))
    for image, reason in (
        (b"", "the file is empty"),
        (b"no image at all", "neither a JPEG nor a PNG"),
        (png(3)[:50], "broken"),
        (b"x" * 20_001, "serving.max_image_bytes allows 20000"),
    ):
        requester.ask(image)
        prediction = requester.answer().prediction
        assert not prediction.ok
        assert reason in prediction.text
        assert prediction.request == name_of(image)


def test_a_requester_cannot_make_the_device_write_on_control_topics(rig: Rig, png: Png) -> None:
    rig.install("r1")
    rig.start("serve")
    requester = rig.requester()
    requester.wait_until_served("r1", png(1))
    target = topic(Kind.COORD_ROUND, rig.config.federation)
    requester.also_hear(target)

    requester.ask(png(255), target, b"7")
    answer = requester.answer()

    assert answer.topic == requester.topic(Kind.DEV_PREDICTION)
    assert answer.correlation == b"7"
    assert not answer.prediction.ok
    assert "response topic" in answer.prediction.text
    time.sleep(0.3)
    assert requester.heard.empty()


def test_every_request_is_answered_while_the_release_is_swapped(rig: Rig, png: Png) -> None:
    rig.install("r1", slope=0.05)
    rig.start("serve")
    requester = rig.requester()
    requester.wait_until_served("r1", png(1))
    answer_to = requester.topic(Kind.DEV_PREDICTION)

    for number in range(200):
        requester.ask(png(255), answer_to, str(number).encode())
        if number == 60:
            rig.install("r2", slope=-0.05)
        time.sleep(0.005)
    answers = [requester.answer() for _ in range(200)]

    assert sorted(int(answer.correlation or b"-1") for answer in answers) == list(range(200))
    labels = [(answer.prediction.release, answer.prediction.label) for answer in answers]
    assert set(labels) == {("r1", "yes"), ("r2", "no")}
    assert labels == sorted(labels), "no answer by the old release after the first by the new one"


def test_a_damaged_release_keeps_the_old_one_and_says_so(
    rig: Rig, png: Png, model: Model, install: Install, tmp_path: Path
) -> None:
    rig.install("r1")
    rig.start("serve")
    requester = rig.requester()
    requester.wait_until_served("r1", png(1))
    damaged = install(tmp_path / "elsewhere", "r2", model(slope=0.2))
    body = tmp_path / "elsewhere" / damaged.file
    body.write_bytes(body.read_bytes()[:-1] + b"?")
    for path in (body, body.with_suffix(".head")):
        path.rename(rig.config.folder / "models" / path.name)
    (tmp_path / "elsewhere/release.json").rename(rig.config.folder / "release.json")

    story = requester.story("release-refused")
    requester.ask(png(255))

    assert "release r2 cannot be served, release r1 is served still" in story.text
    assert (requester.answer().prediction.release, story.device) == ("r1", "rpi1")


def test_a_second_serving_process_on_the_same_folder_is_refused(rig: Rig, png: Png) -> None:
    rig.install("r1")
    rig.start("serve")
    rig.requester().wait_until_served("r1", png(1))

    assert rig.start("serve").wait(15) == 78


# ---- the daemon's child ---------------------------------------------------------------------


def test_the_daemon_serves_and_its_child_returns_when_killed_and_ends_with_it(rig: Rig, png: Png) -> None:
    rig.install("r1")
    daemon = rig.start("run")
    requester = rig.requester()
    requester.wait_until_served("r1", png(1))
    (child,) = psutil.Process(daemon.pid).children()

    child.kill()
    assert "killed" in requester.story("serving-ended").text
    requester.wait_until_served("r1", png(2))
    (successor,) = psutil.Process(daemon.pid).children()
    assert successor.pid != child.pid

    daemon.send_signal(signal.SIGKILL)
    daemon.wait(5)
    psutil.wait_procs([successor], timeout=5)
    assert not is_running(successor.pid)


def test_the_child_ends_in_order_with_the_daemon(rig: Rig, png: Png) -> None:
    rig.install("r1")
    daemon = rig.start("run")
    rig.requester().wait_until_served("r1", png(1))
    (child,) = psutil.Process(daemon.pid).children()

    started = time.monotonic()
    daemon.terminate()

    assert daemon.wait(10) == 0
    assert time.monotonic() - started < 4
    assert not is_running(child.pid)


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
