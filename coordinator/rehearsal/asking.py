"""Asking a device: image bytes go out over MQTT, predictions come back."""

import hashlib
import time
from dataclasses import dataclass

from common import topics
from common.config import BrokerConfig
from common.errors import LinkError, PeerError, WorkError
from common.inbox import Inbox
from common.link import Link, Received, Subscribed, Up
from common.messages import Prediction, decode_story
from common.topics import Kind, topic

ANSWER_S = 30.0
AGAIN_S = 3.0


@dataclass(frozen=True)
class Answer:
    """A device's prediction, and how long it took from publish to answer, in milliseconds."""

    prediction: Prediction
    round_trip_ms: float


class Asker:
    """A connection that asks a device for one image at a time, as an application would."""

    def __init__(self, federation: str, device: str, broker: BrokerConfig) -> None:
        self._federation = federation
        self._device = device
        self._inbox = Inbox()
        self._link = Link("asker", f"fedpi-{federation}-asker-{device}", broker, self._inbox)

    def start(self) -> None:
        """Connect, and listen to the device's predictions. Raises LinkError."""
        self._link.start()
        self._until(Up)
        self._link.subscribe(topic(Kind.DEV_PREDICTION, self._federation, device=self._device))
        self._until(Subscribed)

    def ask(self, image: bytes) -> Answer:
        """Send one image and wait for the answer. Raises WorkError when none comes."""
        request = hashlib.sha256(image).hexdigest()[:16]
        started = time.monotonic()
        while time.monotonic() - started < ANSWER_S:
            self._link.publish(topic(Kind.DEV_INFER, self._federation, device=self._device), image)
            if (found := self._await(request)) is not None:
                return Answer(found, 1000 * (time.monotonic() - started))
        raise WorkError(f"{self._device} did not answer within {ANSWER_S:g} s; is its serving process running?")

    def stop(self) -> None:
        """Disconnect."""
        self._link.stop()

    def _until(self, kind: type) -> None:
        deadline = time.monotonic() + ANSWER_S
        while not isinstance(self._inbox.get(deadline - time.monotonic()), kind):
            if time.monotonic() > deadline:
                raise LinkError("the broker does not answer")

    def _await(self, request: str) -> Prediction | None:
        deadline = time.monotonic() + AGAIN_S
        while (left := deadline - time.monotonic()) > 0:
            event = self._inbox.get(left)
            if not isinstance(event, Received):
                continue
            try:
                address = topics.parse(event.topic)
                prediction = decode_story(event.payload, Prediction)
            except PeerError:
                continue
            if address.device == self._device and prediction.request == request:
                return prediction
        return None
