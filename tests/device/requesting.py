"""A device that serves in a folder of the test's own, and a program that asks it for predictions."""

import contextlib
import queue
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from common.config import BrokerConfig
from common.messages import Prediction, StoryEvent
from common.topics import VERSION, Kind, of_version, topic
from device.config import DeviceConfig
from device.store import CurrentRelease

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

    def __init__(
        self, broker: BrokerConfig, federation: str, protocol: MQTTProtocolVersion, version: str = VERSION
    ) -> None:
        self._version = version
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
        return of_version(self._version, topic(kind, self._federation, device="rpi1"))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def also_hear(self, name: str) -> None:
        self._client.subscribe(name, qos=1)

    def ask(
        self, image: bytes, answer_to: str | None = None, correlation: bytes | None = None, *, is_retained: bool = False
    ) -> None:
        properties = None
        if answer_to is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped
            properties.ResponseTopic = answer_to
            if correlation is not None:
                properties.CorrelationData = correlation
        self._client.publish(self.topic(Kind.DEV_INFER), image, qos=1, retain=is_retained, properties=properties)

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

    def requester(
        self, protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5, version: str = VERSION
    ) -> Requester:
        """Start a program that asks by the topics of that version of fedpi's protocol."""
        self._requesters.append(Requester(self.config.broker, self.config.federation, protocol, version))
        return self._requesters[-1]

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(15)
        for requester in self._requesters:
            requester.close()
