import contextlib
import hashlib
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from common.config import BrokerConfig
from common.messages import Prediction, StoryEvent
from common.topics import Kind, topic
from device.config import DeviceConfig, ServingConfig
from device.serving import NOT_YET, name_of
from device.store import CurrentRelease

pytestmark = pytest.mark.system
Install = Callable[..., CurrentRelease]
Model = Callable[..., bytes]
Png = Callable[[int], bytes]


@dataclass(frozen=True)
class Answer:
    topic: str
    payload: bytes
    correlation: bytes | None

    @property
    def prediction(self) -> Prediction:
        return msgspec.json.decode(self.payload, type=Prediction)


class Requester:
    """A program that asks one device for predictions, and hears all that is said on its topics."""

    def __init__(self, broker: BrokerConfig, federation: str, protocol: MQTTProtocolVersion) -> None:
        self.heard: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._federation = federation
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        self._client.on_message = self._on_message
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        subscribed: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._client.on_subscribe = lambda *_: subscribed.put(None)
        for name in (self.topic(Kind.DEV_PREDICTION), self.topic(Kind.DEV_EVENT), f"answers/{federation}/#"):
            self._client.subscribe(name, qos=1)
            subscribed.get(timeout=10)

    def topic(self, kind: Kind) -> str:
        return topic(kind, self._federation, device="rpi1")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def also_hear(self, name: str) -> None:
        self._client.subscribe(name, qos=1)

    def ask(self, image: bytes, answer_to: str | None = None, correlation: bytes | None = None) -> None:
        properties = None
        if answer_to is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped
            properties.ResponseTopic = answer_to
            if correlation is not None:
                properties.CorrelationData = correlation
        self._client.publish(self.topic(Kind.DEV_INFER), image, qos=1, properties=properties)

    def answer(self, timeout_s: float = 10.0) -> Answer:
        """The next answer; what is told to people is passed over."""
        while (answer := self.heard.get(timeout=timeout_s)).topic == self.topic(Kind.DEV_EVENT):
            pass
        return answer

    def story(self, event: str, timeout_s: float = 10.0) -> StoryEvent:
        """The next event of that kind; answers are passed over."""
        while True:
            heard = self.heard.get(timeout=timeout_s)
            if heard.topic == self.topic(Kind.DEV_EVENT):
                story = msgspec.json.decode(heard.payload, type=StoryEvent)
                if story.event == event:
                    return story

    def wait_until_served(self, release: str, image: bytes) -> None:
        """Ask until the device answers with that release; then nothing more is on its way."""
        end = time.monotonic() + 15
        while time.monotonic() < end:
            self.ask(image)
            with contextlib.suppress(queue.Empty):
                if self.answer(0.5).prediction.release == release:
                    time.sleep(0.2)
                    while not self.heard.empty():
                        self.heard.get()
                    return
        pytest.fail(f"release {release} is not served")

    def _on_message(self, _client: mqtt.Client, _userdata: object, message: mqtt.MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", None)
        self.heard.put(Answer(message.topic, bytes(message.payload), correlation))


class Rig:
    """A device named rpi1 in a federation of the test's own; what is started here ends with the test."""

    def __init__(self, config: DeviceConfig, model: Model, install: Install) -> None:
        self.config = config
        self._model = model
        self._install = install
        self._processes: list[subprocess.Popen[bytes]] = []
        self._requesters: list[Requester] = []

    def install(self, release: str, **drawing: float) -> None:
        """Put a release into the state folder as the daemon does."""
        self._install(self.config.folder, release, self._model(**drawing))

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start `fedpi-device COMMAND --config`."""
        self.config.folder.mkdir(exist_ok=True)
        path = self.config.folder / "device.yaml"
        path.write_bytes(msgspec.json.encode(self.config))  # JSON is YAML
        self._processes.append(subprocess.Popen([sys.executable, "-m", "device", command, "--config", str(path)]))
        return self._processes[-1]

    def speak_to(self, broker: BrokerConfig) -> None:
        """Use another broker, for all that is started from here on."""
        self.config = msgspec.structs.replace(self.config, broker=broker)

    def requester(self, protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5) -> Requester:
        self._requesters.append(Requester(self.config.broker, self.config.federation, protocol))
        return self._requesters[-1]

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(15)
        for requester in self._requesters:
            requester.close()


@pytest.fixture
def rig(
    request: pytest.FixtureRequest, tmp_path: Path, mosquitto: BrokerConfig, model: Model, install: Install
) -> Iterator[Rig]:
    config = DeviceConfig(
        federation=hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12],
        device="rpi1",
        state=str(tmp_path / "state"),
        broker=mosquitto,
        serving=ServingConfig(threads=1, max_image_bytes=20_000),
    )
    rig = Rig(config, model, install)
    yield rig
    rig.close()


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
