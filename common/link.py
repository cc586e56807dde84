"""A connection to the broker: with `common.mqtt_client` the only importer of paho.

Every connection is a new paho client with a clean session, so nothing survives inside paho or the
broker when one breaks: the ends say again what is not yet answered. A thread of the link's own makes
the connection and waits to make the next one; all else, callbacks included, happens in the thread that
reads the inbox, and callbacks only put events there.
"""

import random
import ssl
import threading
import time
from collections.abc import Callable
from functools import partial

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from common import tls, troubles
from common.config import BrokerConfig, read_password
from common.connection import Connection
from common.errors import FedpiError
from common.inbox import Inbox
from common.limits import PACKET_LEAST, PACKET_MOST, WINDOW, Limits
from common.link_events import Broken, Denied, Down, Received, Room, Subscribed, Up, Will
from common.mqtt_client import MqttClient
from common.names import address
from common.troubles import Trouble

CLOSED = 4
"""Connections by MQTT 5 in a row that end without an answer, until 3.1.1 is tried."""
_V5, _V311 = mqtt.MQTTv5, mqtt.MQTTv311


class Link:
    """One named connection that keeps itself alive. All methods belong to the thread that reads the inbox.

    `will` is called in the link's own thread, before every attempt to connect. Making one raises ConfigError where
    the configuration cannot work; a file that becomes unusable later is a reason for `Down` like any other.
    """

    def __init__(
        self,
        name: str,
        client_id: str,
        broker: BrokerConfig,
        inbox: Inbox,
        *,
        will: Callable[[], Will] | None = None,
    ) -> None:
        self._name = name
        self._client_id = client_id
        self._broker = broker
        self._inbox = inbox
        self._deliver = inbox.put
        self._will = will
        self._password = read_password(broker)
        if broker.tls is not None:
            tls.context(broker.tls)
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._protocol = _V311 if broker.protocol == "3.1.1" else _V5
        self._window = WINDOW
        self._packet_bytes = PACKET_MOST
        self._closed = 0
        self.limits = Limits("", None, WINDOW)
        self._thread = threading.Thread(target=self._run, name=f"link-{name}", daemon=True)

    def start(self, packet_bytes: int = PACKET_MOST) -> None:
        """Connect in the background; `Up` tells when. A packet of more than `packet_bytes` ends the connection."""
        self._packet_bytes = packet_bytes
        self._inbox.attach(self)
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Disconnect in order (the will is not sent) and end the thread."""
        self._stopping.set()
        if (connection := self._connection) is not None:
            connection.end()
        self._thread.join(timeout_s)

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, correlation: bytes | None = None
    ) -> int | None:
        """Publish with QoS 1 if connected, and return the message's id; else the message is lost.

        `correlation` needs a connection by MQTT 5.
        """
        connection = self._up()
        if connection is None:
            return None
        connection.unacknowledged += 1
        properties = None
        if correlation is not None and self.limits.protocol == "5":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho leaves it untyped
            properties.CorrelationData = correlation
        info = connection.client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        connection.topics[info.mid] = topic
        return int(info.mid)

    def is_under_way(self, message: int) -> bool:
        """Whether the message with that id was published on this connection, and is not acknowledged yet."""
        connection = self._up()
        return connection is not None and message in connection.topics

    def subscribe(self, topic: str, qos: int = 1) -> None:
        """Subscribe; `Subscribed` or `Denied` follows."""
        if (connection := self._up()) is not None:
            _, mid = connection.client.subscribe(topic, qos=qos)
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
        """Wait until the broker has acknowledged what was published, at most `timeout_s`; events stay queued."""
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            if (connection := self._up()) is None or connection.unacknowledged == 0:
                return
            self._inbox.serve(left)

    def _up(self) -> Connection | None:
        connection = self._connection
        return connection if connection is not None and connection.is_up else None

    # ---- what the inbox calls: see `Source` there -------------------------------------------

    def descriptor(self) -> int | None:
        connection = self._connection
        if connection is None or connection.line is None:
            return None
        if connection.has_failed:
            connection.end()
            return None
        return int(connection.line.fileno())

    def has_pending(self) -> bool:
        connection = self._connection
        line = connection.line if connection is not None else None
        return isinstance(line, ssl.SSLSocket) and line.pending() > 0

    def wants_write(self) -> bool:
        return self._connection is not None and self._connection.client.want_write()

    def read(self) -> None:
        self._use(mqtt.Client.loop_read)

    def write(self) -> None:
        self._use(mqtt.Client.loop_write)

    def tend(self) -> None:
        self._use(mqtt.Client.loop_misc)

    def _use(self, step: Callable[[mqtt.Client], object]) -> None:
        """Let paho take one step on the open connection."""
        connection = self._connection
        if connection is None or connection.line is None:
            return
        try:
            step(connection.client)
        except Exception as error:  # noqa: BLE001 - what paho raises for bytes that are not MQTT is not documented
            connection.reason = f"the broker sent what is not MQTT: {error}"
            connection.has_failed = True

    # ---- the link's own thread --------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._keep_connected()
        except Exception as error:  # noqa: BLE001 - a bug here must reach the loop, not vanish with its thread
            self._deliver(Broken(self._name, error))

    def _keep_connected(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            client = MqttClient(self._client_id, self._packet_bytes, is_v5=self._protocol == _V5)
            connection, window = Connection(client), self._window
            self._connection = connection
            if self._stopping.is_set():  # stop() may have looked for a connection before this one was there
                connection.ended.set()
                return
            self._hold(connection)
            if self._stopping.is_set():
                return
            if connection.was_reached and not (connection.was_answered or connection.was_refused):
                connection.explain(troubles.of_closing(connection.reason, self._broker))
            where = address(self._broker.host, self._broker.port)
            self._deliver(Down(self._name, f"{where}: {connection.reason}", connection.is_lasting))
            if self._broker.protocol == "auto" and self._window == window and connection.was_reached:
                self._choose_protocol(connection)
            attempt = 0 if connection.was_up and not connection.client.refusal else attempt + 1
            # Full jitter, so that a fleet does not return to a restarted broker in one wave.
            self._stopping.wait(random.uniform(0.0, min(self._broker.reconnect_max_s, 0.5 * 2 ** min(attempt, 10))))  # noqa: S311 - not a secret

    def _choose_protocol(self, connection: Connection) -> None:
        """Fall back to 3.1.1 where a broker does not take MQTT 5: it refuses, or closes the line time and again.

        What closes it once may be a proxy whose broker has just died: with 3.1.1 we would not hear its limits.
        """
        is_answered = connection.was_answered or connection.was_refused
        self._closed = 0 if is_answered else self._closed + 1
        is_hopeless = connection.was_refused or self._closed >= CLOSED
        self._protocol = _V311 if self._protocol == _V5 and is_hopeless else _V5

    def _hold(self, connection: Connection) -> None:
        """Connect and stay connected until it ends; `connection.reason` tells why it did."""
        client = connection.client
        guard = partial(self._guarded, connection)
        client.on_log = guard(lambda _c, _u, level, text: self._on_log(connection, level, text))
        client.on_connect = guard(lambda _c, _u, _f, code, properties: self._on_connect(connection, code, properties))
        client.on_disconnect = guard(lambda _c, _u, _f, code, _p: self._on_disconnect(connection, code))
        client.on_publish = guard(lambda _c, _u, mid, code, _p: self._on_publish(connection, mid, code))
        client.on_subscribe = guard(lambda _c, _u, mid, codes, _p: self._on_subscribe(connection, mid, codes))
        client.on_message = guard(lambda _c, _u, message: self._on_message(message))
        try:
            self._equip(client)
            announced = client.connect_properties()
            client.connect(self._broker.host, self._broker.port, self._broker.keepalive_s, properties=announced)
        except FedpiError as error:
            connection.reason = str(error) or type(error).__name__
            return
        except (OSError, ValueError) as error:
            connection.explain(troubles.of_error(error, self._broker))
            return
        connection.was_reached = True
        connection.line = client.socket()
        if connection.line is None:  # it broke before connect() came back: nothing is left to wait for
            return
        self._inbox.wake()
        connection.ended.wait()
        client.disconnect()  # does nothing, unless stop() came while we were connecting

    def _guarded(self, connection: Connection, callback: Callable[..., None]) -> Callable[..., None]:
        """Carry what `callback` raises to the loop: paho would log it and go on."""

        def guarded(*args: object) -> None:
            try:
                callback(*args)
            except Exception as error:  # noqa: BLE001 - see above
                self._deliver(Broken(self._name, error))
                connection.has_failed = True

        return guarded

    def _equip(self, client: mqtt.Client) -> None:
        """Let it log in, and leave a will; raises ConfigError, WorkError for a file that became unusable."""
        client.max_inflight_messages_set(self._window)
        if self._broker.username is not None:
            client.username_pw_set(self._broker.username, self._password)
        if self._broker.tls is not None:
            client.tls_set_context(tls.context(self._broker.tls))
        if self._will is not None:
            will = self._will()
            client.will_set(will.topic, will.payload, qos=1, retain=True)

    def _on_connect(self, connection: Connection, code: ReasonCode, properties: Properties | None) -> None:
        if code.is_failure:
            connection.was_refused = True
            connection.explain(self._of(code))
            connection.has_failed = True
            return
        connection.was_answered = True
        window = getattr(properties, "ReceiveMaximum", self._window)
        if window < self._window:  # paho does not read it, and takes a window only before it connects
            self._window = window
            connection.reason = f"connecting again with the broker's Receive Maximum of {window}"
            connection.has_failed = True
            return
        announced = getattr(properties, "MaximumPacketSize", None)
        if announced is not None and announced < PACKET_LEAST:
            connection.explain(troubles.of_limit(announced))
            connection.has_failed = True
            return
        known = [size for size in (announced, self._broker.packet_limit_bytes) if size is not None]
        self.limits = Limits("5" if self._protocol == _V5 else "3.1.1", min(known, default=None), self._window)
        connection.is_up = connection.was_up = True
        self._deliver(Up(self._name, self.limits))

    def _of(self, code: ReasonCode) -> Trouble:
        return troubles.of_code(str(code), self._broker)

    def _on_message(self, message: mqtt.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""  # not a topic of ours: the loop counts it like any other malformed message
        given = vars(message.properties) if message.properties else {}
        answer_to, correlation = given.get("ResponseTopic"), given.get("CorrelationData")
        payload = bytes(message.payload)
        received = Received(self._name, topic, payload, answer_to, correlation, message.retain)
        self._inbox.put(received, len(payload))

    @staticmethod
    def _on_log(connection: Connection, level: int, text: str) -> None:
        if level == mqtt.MQTT_LOG_ERR:
            connection.trouble = text

    def _on_disconnect(self, connection: Connection, code: ReasonCode) -> None:
        if not connection.has_failed:
            said = connection.client.refusal or connection.trouble
            trouble = Trouble(said, is_lasting=bool(connection.client.refusal)) if said else self._of(code)
            connection.explain(trouble)
            connection.has_failed = True

    def _on_publish(self, connection: Connection, mid: int, code: ReasonCode) -> None:
        connection.unacknowledged -= 1
        topic = connection.topics.pop(mid, "")
        if code.is_failure:
            self._deliver(Denied(self._name, topic, f"publish refused: {code}"))
        if connection.unacknowledged == self.limits.window // 2:
            self._deliver(Room(self._name))

    def _on_subscribe(self, connection: Connection, mid: int, codes: list[ReasonCode]) -> None:
        topic = connection.topics.pop(mid, "")
        refused = next((code for code in codes if code.is_failure), None)
        if refused is not None:
            self._deliver(Denied(self._name, topic, f"subscription refused: {refused}"))
        else:
            self._deliver(Subscribed(self._name, topic))


__all__ = ["Broken", "Denied", "Down", "Link", "Received", "Room", "Subscribed", "Up", "Will"]
