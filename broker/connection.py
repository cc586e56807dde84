"""One bare connection for the probes: it shows what a broker does, where `common.link` copes with it.

With `common.link` the only importer of paho. Nothing reconnects here, and every wait has an end.
"""

import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, cast

import paho.mqtt.client as mqtt
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from common import tls, troubles
from common.config import BrokerConfig, read_password
from common.errors import ConfigError, LinkError
from common.limits import PACKET_OVERHEAD
from common.link import Will
from common.mqtt_client import MqttClient
from common.names import address
from common.troubles import Trouble

OPEN_S = 4.0
ANSWER_S = 3.0
TOP_BYTES = 2**20
"""Bytes of the largest packet that is tried."""
KEPT_S = 120
"""How long a broker should keep a kept session, should the check be killed before it clears it."""
NO_RIGHT = "Not authorized"


@dataclass(frozen=True)
class Message:
    """What arrived: whether as a retained message, and when by the monotonic clock."""

    topic: str
    payload: bytes
    is_retained: bool
    at: float


@dataclass(frozen=True)
class Session:
    """How to connect: `protocol` is `5` or `3.1.1`; a kept session outlives its connection."""

    client_id: str
    protocol: str
    is_kept: bool = False
    will: Will | None = None


class Connection:
    """A context manager: connected inside, closed in order at its end unless it `vanish`ed.

    Entering raises LinkError where nothing listens or nothing answers as a broker of that protocol,
    ConfigError where the broker says what somebody has to mend, such as a wrong password.
    """

    def __init__(self, broker: BrokerConfig, session: Session) -> None:
        self._broker = broker
        self._session = session
        self._opened = threading.Event()
        self._closed = threading.Event()
        self._answers: dict[int, str | None] = {}
        self._answered = threading.Condition()
        self._code: ReasonCode | None = None
        self._client = _new_client(broker, session)
        self._client.on_connect = self._on_connect
        self._client.on_log = self._on_log
        self._said = ""
        self._client.on_disconnect = lambda *_: self._on_disconnect()
        self._client.on_message = self._on_message
        self._client.on_publish = lambda _c, _u, mid, code, _p: self._on_answer(mid, [code])
        self._client.on_subscribe = lambda _c, _u, mid, codes, _p: self._on_answer(mid, codes)
        self.announced: dict[str, Any] = {}
        """The properties of an MQTT 5 CONNACK by name."""
        self.messages: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        """Connect."""
        where = address(self._broker.host, self._broker.port)
        try:
            self._client.connect(
                self._broker.host,
                self._broker.port,
                keepalive=60,
                clean_start=not self._session.is_kept if self._is_v5 else mqtt.MQTT_CLEAN_START_FIRST_ONLY,
                properties=self._connect_properties(),
            )
        except (OSError, ValueError) as error:
            said = troubles.of_error(error, self._broker).text
            raise LinkError(f"no broker answers at {where}: {said}") from error
        self._client.loop_start()
        self._opened.wait(OPEN_S)
        if self._code is None or self._code.is_failure:
            was_closed = self.is_closed
            self.close()
            trouble = self._trouble(was_closed)
            kind = ConfigError if trouble.is_lasting and self._code is not None else LinkError
            raise kind(f"no connection to {where} by MQTT {self._session.protocol}: {trouble.text}")
        return self

    def _trouble(self, was_closed: bool) -> Trouble:
        if self._code is not None:
            return troubles.of_code(str(self._code), self._broker)
        if was_closed:
            return troubles.of_closing(self._said or "it gave no reason", self._broker)
        return Trouble("it is no broker, or none that answers")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_closed(self) -> bool:
        """Whether the broker, or we, ended the connection."""
        return self._closed.is_set()

    def _connect_properties(self) -> Properties | None:
        properties = self._client.connect_properties()
        if properties is not None and self._session.is_kept:
            properties.SessionExpiryInterval = KEPT_S
        return properties

    @property
    def _is_v5(self) -> bool:
        return self._session.protocol == "5"

    def subscribe(self, topic: str) -> None:
        """Subscribe with QoS 1 and wait for the answer; raises ConfigError where this user may not."""
        _, mid = self._client.subscribe(topic, qos=1)
        if mid is not None:
            self._require_right("subscribe to", topic, self._answer(mid, ANSWER_S))

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Publish with QoS 1 and do not wait; returns the id to ask `fate` for."""
        return self._client.publish(topic, payload, qos=1, retain=retain).mid

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1 and wait for the answer; raises ConfigError where this user may not."""
        mid = self.send(topic, payload, retain=retain)
        self._require_right("publish", topic, self._answer(mid, ANSWER_S))

    def publish_all(self, topic: str, payloads: Iterable[bytes], window: int, timeout_s: float) -> int:
        """Publish with at most `window` unacknowledged; returns how many were sent before time ran out."""
        end = time.monotonic() + timeout_s
        pending: deque[int] = deque()
        sent = 0
        for payload in payloads:
            if len(pending) >= window:
                self._answer(pending.popleft(), max(end - time.monotonic(), 0.0))
            if self.is_closed or time.monotonic() > end:
                break
            pending.append(self.send(topic, payload))
            sent += 1
        while pending:
            self._answer(pending.popleft(), max(end - time.monotonic(), 0.0))
        return sent

    def fate(self, mid: int) -> Literal["unanswered", "accepted", "refused"]:
        """What the broker has said so far about the publish `mid`."""
        with self._answered:
            if mid not in self._answers:
                return "unanswered"
            return "accepted" if self._answers[mid] is None else "refused"

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next message, or None when none came in time."""
        try:
            return self.messages.get(timeout=max(timeout_s, 0.0))
        except queue.Empty:
            return None

    def collect(self, limit: int, quiet_s: float, timeout_s: float) -> list[Message]:
        """Receive until there are `limit` messages, none came for `quiet_s`, or time is up."""
        end = time.monotonic() + timeout_s
        found: list[Message] = []
        while len(found) < limit:
            message = self.receive(min(quiet_s, end - time.monotonic()))
            if message is None:
                break
            found.append(message)
        return found

    def pause(self) -> None:
        """Stop reading and acknowledging, as a busy device does."""
        self._client.loop_stop()

    def resume(self) -> None:
        """Read on after `pause`."""
        self._client.loop_start()

    def vanish(self) -> None:
        """End the connection without a word, as a power cut does."""
        if (line := self._client.socket()) is not None:
            cast("socket.socket", line).shutdown(socket.SHUT_RDWR)
        self._closed.wait(ANSWER_S)

    def close(self) -> None:
        """Say goodbye, if there is still somebody to say it to."""
        self._client.disconnect()
        self._client.loop_stop()
        self._closed.set()

    def _answer(self, mid: int, timeout_s: float) -> str | None:
        """Wait for the acknowledgement of `mid`; returns the reason if it is a refusal."""
        with self._answered:
            self._answered.wait_for(lambda: mid in self._answers or self.is_closed, timeout_s)
            return self._answers.get(mid)

    def _require_right(self, what: str, topic: str, refusal: str | None) -> None:
        if refusal != NO_RIGHT:
            return
        user = f"user {self._broker.username!r}" if self._broker.username else "an anonymous user"
        raise ConfigError(f"{user} may not {what} {topic}; check with the coordinator's user, who may hold every topic")

    # ---- called in paho's thread ------------------------------------------------------------

    def _on_connect(self, _c: Any, _u: Any, _f: Any, code: ReasonCode, properties: Properties | None) -> None:
        self._code = code
        if properties is not None:
            self.announced = dict(properties.json())  # type: ignore[no-untyped-call]  # paho leaves it untyped
        self._opened.set()

    def _on_log(self, _c: Any, _u: Any, level: int, text: str) -> None:
        if level == mqtt.MQTT_LOG_ERR:
            self._said = self._said or text

    def _on_disconnect(self) -> None:
        self._closed.set()
        self._opened.set()  # or never: whoever waits for it finds no code
        with self._answered:
            self._answered.notify_all()

    def _on_message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        self.messages.put(Message(message.topic, bytes(message.payload), message.retain, time.monotonic()))

    def _on_answer(self, mid: int, codes: list[ReasonCode]) -> None:
        with self._answered:
            self._answers[mid] = next((str(code) for code in codes if code.is_failure), None)
            self._answered.notify_all()


def _new_client(broker: BrokerConfig, session: Session) -> MqttClient:
    is_v5, most = session.protocol == "5", TOP_BYTES + PACKET_OVERHEAD
    client = MqttClient(session.client_id, most, is_v5=is_v5, keeps_session=session.is_kept)
    client.connect_timeout = OPEN_S
    client.max_inflight_messages_set(0)  # the window is ours
    if broker.username is not None:
        client.username_pw_set(broker.username, read_password(broker))
    if broker.tls is not None:
        client.tls_set_context(tls.context(broker.tls))
    if session.will is not None:
        client.will_set(session.will.topic, session.will.payload, qos=1, retain=True)
    return client
