"""A connection to the broker: the only importer of paho.

Every connection is a new paho client with a clean session, so nothing survives inside paho or the
broker when one breaks: the ends say again what is not yet answered. Callbacks only hand events to
`deliver`, from a thread of the link's own.
"""

import random
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from common.config import BrokerConfig, read_password
from common.errors import ConfigError

WINDOW = 20
"""Unacknowledged publishes; the smallest in-flight queue of a broker in `docs/brokers.md`."""
BACKOFF_MAX_S = 30.0
PACKET_OVERHEAD = 1024
"""Room in a packet for topic, properties and our own message around a chunk's data."""
_V5, _V311 = mqtt.MQTTv5, mqtt.MQTTv311


@dataclass(frozen=True)
class Limits:
    """What this connection may carry: MQTT version, bytes of one packet, unacknowledged publishes."""

    protocol: str
    packet_bytes: int | None
    window: int

    def chunk_bytes(self, wanted: int) -> int:
        """Bytes of chunk data that fit a packet here: `wanted` or less, a multiple of 1 KiB, at least 4 KiB."""
        if self.packet_bytes is None:
            return wanted
        return max(min(wanted, (self.packet_bytes - PACKET_OVERHEAD) // 1024 * 1024), 4096)


@dataclass(frozen=True)
class Up:
    """The connection `link` is made; subscriptions of earlier connections are gone."""

    link: str
    limits: Limits


@dataclass(frozen=True)
class Down:
    """The connection `link` broke or could not be made; the link tries again by itself."""

    link: str
    reason: str


@dataclass(frozen=True)
class Received:
    """A message arrived; the requester's topic for an answer and its correlation data are MQTT 5's."""

    link: str
    topic: str
    payload: bytes
    response_topic: str | None = None
    correlation: bytes | None = None


@dataclass(frozen=True)
class Room:
    """There is room for more publishes after the window was full."""

    link: str


@dataclass(frozen=True)
class Subscribed:
    """The broker granted a subscription."""

    link: str
    topic: str


@dataclass(frozen=True)
class Denied:
    """The broker refused a subscription or a publish."""

    link: str
    topic: str
    reason: str


@dataclass(frozen=True)
class Broken:
    """A bug surfaced in the link's thread; the loop raises it."""

    link: str
    error: Exception


@dataclass(frozen=True)
class Will:
    """What the broker publishes, retained, when the connection dies."""

    topic: str
    payload: bytes


@dataclass
class _Connection:
    """One paho client from CONNECT to its end, and what is unacknowledged on it."""

    client: mqtt.Client
    ended: threading.Event = field(default_factory=threading.Event)
    reason: str = "the connection closed"
    is_up: bool = False
    unacknowledged: int = 0
    topics: dict[int, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Link:
    """One named connection that keeps itself alive. All methods may be called from any thread."""

    def __init__(
        self,
        name: str,
        client_id: str,
        broker: BrokerConfig,
        deliver: Callable[[object], None],
        *,
        will: Will | None = None,
    ) -> None:
        self._name = name
        self._client_id = client_id
        self._broker = broker
        self._deliver = deliver
        self._will = will
        self._password = read_password(broker)
        self._stopping = threading.Event()
        self._connection: _Connection | None = None
        self._protocol = _V311 if broker.protocol == "3.1.1" else _V5
        self._window = WINDOW
        self.limits = Limits("", None, WINDOW)
        self._thread = threading.Thread(target=self._run, name=f"link-{name}", daemon=True)

    def start(self) -> None:
        """Connect in the background; `Up` tells when."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Disconnect in order (the will is not sent) and end the thread."""
        self._stopping.set()
        if (connection := self._connection) is not None:
            connection.client.disconnect()
            connection.ended.wait(timeout_s)
            connection.ended.set()
        self._thread.join(timeout_s)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, correlation: bytes | None = None) -> None:
        """Publish with QoS 1 if connected, else the message is lost; `correlation` needs a connection by MQTT 5."""
        connection = self._up()
        if connection is None:
            return
        with connection.lock:
            connection.unacknowledged += 1
        properties = None
        if correlation is not None and self.limits.protocol == "5":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped
            properties.CorrelationData = correlation
        # Not under our lock: paho calls on_publish with its own lock held, which publish() takes too.
        info = connection.client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        connection.topics[info.mid] = topic

    def subscribe(self, topic: str) -> None:
        """Subscribe with QoS 1; `Subscribed` or `Denied` follows."""
        if (connection := self._up()) is not None:
            with connection.lock:  # so that the answer finds its topic
                _, mid = connection.client.subscribe(topic, qos=1)
                if mid is not None:
                    connection.topics[mid] = topic

    def unsubscribe(self, topic: str) -> None:
        """Stop receiving `topic`."""
        if (connection := self._up()) is not None:
            connection.client.unsubscribe(topic)

    def room(self) -> int:
        """How many more messages may be published before the window is full."""
        connection = self._up()
        return 0 if connection is None else max(self.limits.window - connection.unacknowledged, 0)

    def drain(self, timeout_s: float) -> None:
        """Wait until the broker has acknowledged what was published, at most `timeout_s`."""
        for _ in range(int(timeout_s / 0.02)):
            if (connection := self._up()) is None or connection.unacknowledged == 0:
                return
            connection.ended.wait(0.02)

    def _up(self) -> _Connection | None:
        connection = self._connection
        return connection if connection is not None and connection.is_up else None

    # ---- the link's own thread --------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._keep_connected()
        except Exception as error:  # noqa: BLE001 - a bug here must reach the loop, not vanish with its thread
            self._deliver(Broken(self._name, error))

    def _keep_connected(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            connection, window = _Connection(self._new_client()), self._window
            self._connection = connection
            if self._stopping.is_set():  # stop() may have looked for a connection before this one was there
                connection.ended.set()
                return
            self._hold(connection)
            was_up, connection.is_up = connection.is_up, False
            if self._stopping.is_set():
                return
            self._deliver(Down(self._name, f"{self._broker.host}:{self._broker.port}: {connection.reason}"))
            if not was_up and self._window == window and self._broker.protocol == "auto":
                self._protocol = _V311 if self._protocol == _V5 else _V5
            attempt = 0 if was_up else attempt + 1
            # Full jitter, so that a fleet does not return to a restarted broker in one wave.
            self._stopping.wait(random.uniform(0.0, min(BACKOFF_MAX_S, 0.5 * 2 ** min(attempt, 10))))  # noqa: S311 - not a secret

    def _hold(self, connection: _Connection) -> None:
        """Connect and stay connected until it ends; `connection.reason` tells why it did."""
        client = connection.client
        guard = partial(self._guarded, connection)
        client.on_connect = guard(lambda _c, _u, _f, code, properties: self._on_connect(connection, code, properties))
        client.on_disconnect = guard(lambda _c, _u, _f, code, _p: self._on_disconnect(connection, code))
        client.on_publish = guard(lambda _c, _u, mid, code, _p: self._on_publish(connection, mid, code))
        client.on_subscribe = guard(lambda _c, _u, mid, codes, _p: self._on_subscribe(connection, mid, codes))
        client.on_message = guard(lambda _c, _u, message: self._on_message(message))
        try:
            client.connect(self._broker.host, self._broker.port, self._broker.keepalive_s)
        except (OSError, ValueError) as error:
            connection.reason = str(error)
            connection.ended.set()
            return
        client.loop_start()
        connection.ended.wait()
        client.disconnect()
        client.loop_stop()

    def _guarded(self, connection: _Connection, callback: Callable[..., None]) -> Callable[..., None]:
        """Carry what `callback` raises to the loop: in paho's thread it would vanish, and the thread with it."""

        def guarded(*args: object) -> None:
            try:
                callback(*args)
            except Exception as error:  # noqa: BLE001 - see above
                self._deliver(Broken(self._name, error))
                connection.ended.set()

        return guarded

    def _new_client(self) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=None if self._protocol == _V5 else True,
            protocol=self._protocol,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(self._window)
        client.on_socket_open = send_at_once
        if self._broker.username is not None:
            client.username_pw_set(self._broker.username, self._password)
        if (tls := self._broker.tls) is not None:
            try:
                client.tls_set(ca_certs=tls.ca, certfile=tls.certificate, keyfile=tls.key)
            except OSError as error:
                raise ConfigError(f"broker.tls: cannot use these certificates: {error}") from error
        if self._will is not None:
            client.will_set(self._will.topic, self._will.payload, qos=1, retain=True)
        return client

    def _on_connect(self, connection: _Connection, code: ReasonCode, properties: Properties | None) -> None:
        if code.is_failure:
            connection.reason = str(code)
            connection.ended.set()
            return
        window = getattr(properties, "ReceiveMaximum", self._window)
        if window < self._window:  # paho does not read it, and takes a window only before it connects
            self._window = window
            connection.reason = f"connecting again with the broker's Receive Maximum of {window}"
            connection.ended.set()
            return
        announced = getattr(properties, "MaximumPacketSize", None)
        known = [size for size in (announced, self._broker.packet_limit_bytes) if size is not None]
        self.limits = Limits("5" if self._protocol == _V5 else "3.1.1", min(known, default=None), self._window)
        connection.is_up = True
        self._deliver(Up(self._name, self.limits))

    def _on_message(self, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # not a topic of ours: the loop counts it like any other malformed message
        given = vars(message.properties) if message.properties else {}
        answer_to, correlation = given.get("ResponseTopic"), given.get("CorrelationData")
        self._deliver(Received(self._name, topic, bytes(message.payload), answer_to, correlation))

    def _on_disconnect(self, connection: _Connection, code: ReasonCode) -> None:
        if not connection.ended.is_set():
            connection.reason = str(code)
            connection.ended.set()

    def _on_publish(self, connection: _Connection, mid: int, code: ReasonCode) -> None:
        with connection.lock:
            connection.unacknowledged -= 1
            waiting = connection.unacknowledged
        topic = connection.topics.pop(mid, "")
        if code.is_failure:
            self._deliver(Denied(self._name, topic, f"publish refused: {code}"))
        if waiting == self.limits.window // 2:
            self._deliver(Room(self._name))

    def _on_subscribe(self, connection: _Connection, mid: int, codes: list[ReasonCode]) -> None:
        with connection.lock:
            topic = connection.topics.pop(mid, "")
        refused = next((code for code in codes if code.is_failure), None)
        if refused is not None:
            self._deliver(Denied(self._name, topic, f"subscription refused: {refused}"))
        else:
            self._deliver(Subscribed(self._name, topic))


def send_at_once(_client: mqtt.Client, _userdata: Any, line: Any) -> None:
    """Turn off Nagle's algorithm, which holds a publish back for 40 ms behind an unanswered acknowledgement."""
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
