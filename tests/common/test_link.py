"""A connection that keeps itself alive, against real brokers and against servers that are none."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
from msgspec.structs import replace

from common import link as link_module
from common.config import BrokerConfig
from common.inbox import Inbox
from common.link import Down, Link, Received, Subscribed, Up, Will

WAIT_S = 20.0


def await_(inbox: Inbox, kind: type, count: int = 1) -> list[object]:
    """Return the next `count` events of `kind`; drop the others."""
    found: list[object] = []
    end = time.monotonic() + WAIT_S
    while len(found) < count:
        left = end - time.monotonic()
        assert left > 0, f"no {kind.__name__} came within {WAIT_S:g} s"
        event = inbox.get(left)
        if isinstance(event, kind):
            found.append(event)
    return found


@contextmanager
def linked(broker: BrokerConfig, name: str, will: Callable[[], Will] | None = None) -> Iterator[tuple[Link, Inbox]]:
    inbox = Inbox()
    link = Link(name, f"fedpi-test-link-{name}", broker, inbox, will=will)
    link.start()
    try:
        yield link, inbox
    finally:
        link.stop()


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[BrokerConfig]:
    """A TCP server that does `talk` on every connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    line, _ = listener.accept()
                except OSError:
                    return
                with line:
                    talk(line)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield BrokerConfig(port=listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5.0)


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_what_is_published_comes_back_window_after_window(
    mosquitto: BrokerConfig, protocol: Literal["5", "3.1.1"]
) -> None:
    name = f"echo-{protocol[0]}"
    with linked(BrokerConfig(port=mosquitto.port, protocol=protocol), name) as (link, inbox):
        up = await_(inbox, Up)[0]
        assert isinstance(up, Up)
        assert up.limits.protocol == protocol
        link.subscribe(f"fedpi/2/{name}/x")
        await_(inbox, Subscribed)
        payloads = [bytes([n]) * 100_000 for n in range(100)]
        waiting = list(payloads)
        arrived: list[bytes] = []
        while len(arrived) < len(payloads):
            while waiting and link.room():
                link.publish(f"fedpi/2/{name}/x", waiting.pop(0))
            event = inbox.get(WAIT_S)
            assert event is not None
            if isinstance(event, Received):
                arrived.append(event.payload)
        assert arrived == payloads
        link.drain(WAIT_S)
        assert link.room() == link.limits.window


def test_a_message_is_under_way_until_the_broker_acknowledges_it(mosquitto: BrokerConfig) -> None:
    with linked(mosquitto, "sender") as (link, inbox):
        assert link.publish("fedpi/2/test-link/early", b"") is None
        await_(inbox, Up)
        message = link.publish("fedpi/2/test-link/sent", b"")
        assert message is not None
        assert link.is_under_way(message)
        link.drain(WAIT_S)
        assert not link.is_under_way(message)


def test_a_link_that_stops_leaves_no_will(mosquitto: BrokerConfig) -> None:
    with linked(mosquitto, "heir") as (heir, inbox):
        await_(inbox, Up)
        heir.subscribe("fedpi/2/test-link/will")
        await_(inbox, Subscribed)
        with linked(mosquitto, "testator", lambda: Will("fedpi/2/test-link/will", b"gone")) as (_, own):
            await_(own, Up)
        heir.publish("fedpi/2/test-link/will", b"later")
        first = await_(inbox, Received)[0]
        assert isinstance(first, Received)
        assert first.payload == b"later"


def test_a_second_connection_with_the_name_takes_over(mosquitto: BrokerConfig) -> None:
    with linked(mosquitto, "twin") as (_, first):
        await_(first, Up)
        with linked(mosquitto, "twin") as (_, second):
            await_(second, Up)
            await_(first, Down)


def test_a_broken_connection_is_made_again(mosquitto: BrokerConfig) -> None:
    calls: list[socket.socket] = []

    def relay(line: socket.socket) -> None:  # the first connection breaks at once
        calls.append(line)
        if len(calls) == 1:
            line.recv(100)
            return
        far = socket.create_connection(("127.0.0.1", mosquitto.port))
        threading.Thread(target=_copy, args=(far, line), daemon=True).start()
        _copy(line, far)

    with server(relay) as broker, linked(broker, "again") as (_, inbox):
        await_(inbox, Down)
        await_(inbox, Up)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(2**16):
            target.sendall(data)
    except OSError:
        pass
    target.close()


def test_a_server_that_speaks_no_mqtt_is_a_broken_connection_not_a_crash() -> None:
    def talk(line: socket.socket) -> None:
        line.recv(1000)
        line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 20)

    with server(talk) as broker, linked(broker, "http") as (_, inbox):
        await_(inbox, Down, 2)


@pytest.mark.parametrize("tail", [b"", b"\xff" * 40, bytes(40), b"\x30\xff\xff\xff\x7f", b"\x90\x02\x00\x01"])
def test_nonsense_after_a_good_start_is_a_broken_connection_not_a_crash(tail: bytes) -> None:
    def talk(line: socket.socket) -> None:
        line.recv(1000)
        line.sendall(b"\x20\x03\x00\x00\x00" + tail)
        line.settimeout(0.2)
        try:
            while line.recv(1000):
                pass
        except OSError:
            pass

    with server(talk) as broker, linked(BrokerConfig(port=broker.port, protocol="5"), "nonsense") as (_, inbox):
        await_(inbox, Up)
        await_(inbox, Down)


def test_nobody_listens(free_port: int) -> None:
    with linked(BrokerConfig(port=free_port), "nobody") as (_, inbox):
        down = await_(inbox, Down)[0]
        assert isinstance(down, Down)
        assert str(free_port) in down.reason


@pytest.mark.parametrize(
    ("answer", "levels"),
    [
        (b"\x20\x02\x00\x01", [5, 4]),  # the CONNACK of 3.1.1 that refuses a version
        (b"", [5] * link_module.CLOSED + [4]),
    ],
)
def test_a_broker_that_takes_no_mqtt_5_is_met_with_3_1_1(answer: bytes, levels: list[int]) -> None:
    seen: list[int] = []

    def talk(line: socket.socket) -> None:
        seen.append(line.recv(1000).partition(b"\x00\x04MQTT")[2][0])
        line.sendall(b"\x20\x02\x00\x00" if seen[-1] == 4 else answer)
        if seen[-1] == 4:
            line.recv(1000)

    with server(talk) as broker, linked(replace(broker, reconnect_max_s=0.01), "old") as (_, inbox):
        (up,) = await_(inbox, Up)
    assert isinstance(up, Up)
    assert up.limits.protocol == "3.1.1"
    assert seen == levels
