"""The proxy does what it is told, and nothing else: two plain clients talk through it."""

import socket
import threading
from collections.abc import Callable, Iterator

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from common.config import BrokerConfig
from tests.conftest import find_ports
from tests.faults import packets
from tests.faults.passing import Passing, Way, whose
from tests.faults.proxy import Line, Proxy

WAIT_S = 10.0
NAME = "fedpi-x-dev-rpi1-bulk"
TOPIC = "fedpi/proxy"


class Client:
    """A client at the proxy that listens to TOPIC and waits for what it hears."""

    def __init__(self, port: int, name: str, protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5) -> None:
        self.heard: list[bytes] = []
        self._changed = threading.Condition()
        self.ready, self.gone = threading.Event(), threading.Event()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, name, protocol=protocol, reconnect_on_failure=False)
        self.client.on_connect = lambda client, *_: client.subscribe(TOPIC, 1)
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_disconnect = lambda *_: self.gone.set()
        self.client.on_message = lambda _c, _u, message: self._hear(bytes(message.payload))
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _hear(self, payload: bytes) -> None:
        with self._changed:
            self.heard.append(payload)
            self._changed.notify_all()

    def say(self, payload: bytes) -> None:
        self.client.publish(TOPIC, payload, qos=1).wait_for_publish(WAIT_S)

    def has_heard(self, is_so: Callable[[list[bytes]], bool], timeout_s: float = WAIT_S) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: is_so(self.heard), timeout_s)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def proxy(mosquitto: BrokerConfig) -> Iterator[Proxy]:
    proxy = Proxy(mosquitto.port, find_ports(1))
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.fixture(params=[MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311], ids=str)
def client(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[Client]:
    client = Client(proxy.port, NAME, request.param)
    assert client.ready.wait(WAIT_S)
    yield client
    client.close()


def test_carries_everything_both_ways(proxy: Proxy, client: Client) -> None:
    seen = proxy.watch(lambda passing: passing.publish.payload == b"last" and passing.way is Way.DOWN)
    sent = [bytes([i]) * 70_000 for i in range(20)] + [b"last"]
    for payload in sent:
        client.say(payload)
    assert client.has_heard(lambda heard: heard == sent)
    assert seen.came.is_set()
    assert proxy.connected() == {("rpi1", "bulk")}


def test_cuts_inside_the_packet_that_it_was_told(proxy: Proxy, client: Client) -> None:
    cut = proxy.cut(lambda passing: passing.way is Way.UP, 2, 0.5)
    client.say(b"whole")
    client.client.publish(TOPIC, b"torn" * 1000, qos=1)
    assert client.gone.wait(WAIT_S)
    assert cut.came.is_set()
    assert client.heard in ([], [b"whole"])
    assert not proxy.connected()


def test_black_hole_holds_what_is_sent_until_it_is_lifted(proxy: Proxy, client: Client) -> None:
    proxy.hole("rpi1")
    client.client.publish(TOPIC, b"later", qos=1)
    assert not client.has_heard(bool, 0.3)
    proxy.lift("rpi1")
    assert client.has_heard(lambda heard: heard == [b"later"])


def test_meddler_loses_repeats_and_reorders(proxy: Proxy, client: Client) -> None:
    def meddle(passing: Passing, packet: bytes) -> list[tuple[float, bytes]]:
        if passing.way is Way.UP:
            return [] if passing.publish.payload == b"lost" else [(0.0, packet)]
        first = passing.publish.payload == b"first"
        changed = packets.with_payload(packet, passing.publish, passing.publish.payload + b"!")
        return [(0.2, packet)] if first else [(0.0, packet), (0.0, changed)]

    proxy.meddle(meddle)
    for payload in (b"lost", b"first", b"second"):
        client.say(payload)  # the lost one is acknowledged, too
    assert client.has_heard(lambda heard: heard == [b"second", b"second!", b"first"])


def test_slow_line_takes_its_time(proxy: Proxy, client: Client) -> None:
    proxy.line("rpi1", Line(latency_s=0.1, bytes_per_s=100_000))
    client.client.publish(TOPIC, bytes(20_000), qos=1)  # 0.1 s and 0.2 s, each way
    assert not client.has_heard(bool, 0.5)
    assert client.has_heard(bool)


def test_abandoned_connection_lives_beside_the_next_one(proxy: Proxy, client: Client) -> None:
    proxy.abandon("rpi1", "bulk")
    assert client.gone.wait(WAIT_S)
    again = Client(proxy.port, NAME)
    assert again.ready.wait(WAIT_S)
    assert again.has_heard(lambda heard: not heard)
    proxy.bury()
    again.say(b"alive")
    assert again.has_heard(lambda heard: heard == [b"alive"])
    again.close()


def test_broker_that_is_away_looks_like_a_reset(proxy: Proxy) -> None:
    proxy.broker_port = find_ports(1)
    with socket.create_connection(("127.0.0.1", proxy.port)) as line:
        line.sendall(bytes.fromhex("100f00044d51545505c2003c0000027069"))
        line.settimeout(WAIT_S)
        with pytest.raises(ConnectionResetError):
            line.recv(1)


def test_stream_is_cut_into_packets_wherever_it_was_read() -> None:
    sent = [bytes([0x30, 3, 0, 1, 0x74]), bytes([0x32, 0x80, 0x02]) + bytes(256), bytes([0xC0, 0])]
    stream = b"".join(sent)
    for step in range(1, len(stream)):
        framer = packets.Framer()
        pieces = [stream[i : i + step] for i in range(0, len(stream), step)]
        assert [packet for piece in pieces for packet in framer.feed(piece)] == sent


def test_client_ids_name_their_party() -> None:
    assert whose("fedpi-a-b-dev-pi-3-control") == ("pi-3", "control")
    assert whose("fedpi-a-dev-pi-bulk-0a1b-again1") == ("pi", "bulk")
    assert whose("fedpi-a-coord-bulk") == ("coordinator", "bulk")
    assert whose("stranger") == ("stranger", "")
