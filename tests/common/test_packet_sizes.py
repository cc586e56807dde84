"""A broker that keeps to none of the limits: what it sends too large is not read, by any program of fedpi's."""

import itertools
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, Self

import msgspec
import pytest

from broker.connection import TOP_BYTES, Connection, Session
from common.config import BrokerConfig, DataConfig
from common.inbox import Inbox
from common.limits import PACKET_MOST, PACKET_OVERHEAD
from common.link import Down, Link, Received, Subscribed, Up
from common.topics import Kind, topic
from device.config import DeviceConfig, ServingConfig
from tests.faults import packets

WAIT_S = 30.0
HUGE = 250_000_000
MOST_MB = 100.0
SUBSCRIBE, SUBACK, PINGREQ = 8, 9, 12
QOS_2 = 0x34
PIECE = bytes(2**16)
IMAGE_BYTES = 2**20


def publish(name: str, size: int, *, is_v5: bool, first: int = 0x30) -> Iterator[bytes]:
    """Return a PUBLISH in pieces; by QoS 0 unless `first`, the packet's first byte, says otherwise."""
    head = len(name).to_bytes(2, "big") + name.encode()
    head += (b"\x00\x07" if first & 6 else b"") + (b"\x00" if is_v5 else b"")
    yield bytes([first]) + packets._varint(len(head) + size) + head  # noqa: SLF001 - of the same tests
    for _ in range(size // len(PIECE)):
        yield PIECE
    yield PIECE[: size % len(PIECE)]


class RulelessBroker:
    """Lets everybody in, grants everything, and then sends what `talk` makes of a topic, whatever was announced.

    `connects` has the CONNECT of every connection, `closed` how many of them the other end has closed.
    """

    def __init__(self, talk: Callable[[str, bool], Iterator[bytes]]) -> None:
        self.connects: list[bytes] = []
        self.closed = 0
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def until_closed(self, times: int = 1) -> None:
        end = time.monotonic() + WAIT_S
        while self.closed < times:
            assert time.monotonic() < end, f"{self.closed} connections were closed, not {times}"
            time.sleep(0.02)

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._attend, args=(line,), daemon=True).start()

    def _attend(self, line: socket.socket) -> None:
        framer, is_v5 = packets.Framer(), False
        with line:
            try:
                while data := line.recv(2**16):
                    for packet in framer.feed(data):
                        is_v5 = self._answer(line, packet, is_v5=is_v5)
            except OSError:
                pass
        self.closed += 1

    def _answer(self, line: socket.socket, packet: bytes, *, is_v5: bool) -> bool:
        if packets.kind(packet) == packets.CONNECT:
            self.connects.append(packet)
            is_v5 = packets.speaks_v5(packet)
            line.sendall(bytes.fromhex("20 03 00 00 00" if is_v5 else "20 02 00 00"))
        elif packets.kind(packet) == SUBSCRIBE:
            at = 5 if is_v5 else 4
            size = int.from_bytes(packet[at : at + 2], "big")
            name = packet[at + 2 : at + 2 + size].decode()
            granted = packet[2:4] + (b"\x00" if is_v5 else b"") + b"\x01"
            line.sendall(bytes([SUBACK << 4, len(granted)]) + granted)
            for piece in self._talk(name.replace("+", "rpi1"), is_v5):
                line.sendall(piece)
        elif packets.kind(packet) == PINGREQ:
            line.sendall(b"\xd0\x00")
        return is_v5


def huge(name: str, is_v5: bool) -> Iterator[bytes]:
    return publish(name, HUGE, is_v5=is_v5)


def peak_mb(process: "subprocess.Popen[str]") -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def announced(connect: bytes) -> int:
    """Return the Maximum Packet Size of a CONNECT by MQTT 5, whose only property it is."""
    found = re.search(rb"\x05\x27(.{4})", connect, re.DOTALL)
    assert found is not None, connect
    return int.from_bytes(found[1], "big")


def command(program: str, folder: Path, port: int, protocol: Literal["auto", "3.1.1"]) -> list[str]:
    """Return the command line of a program that is to speak to the broker at `port`."""
    path, broker = folder / "config.yaml", BrokerConfig(port=port, protocol=protocol)
    if program == "coordinator":
        path.write_bytes(msgspec.json.encode({"federation": "lab", "broker": {"port": port, "protocol": protocol}}))
        return [sys.executable, "-m", "coordinator", "watch", "--config", str(path)]
    config = DeviceConfig(
        federation="lab",
        device="rpi1",
        state=str(folder / "state"),
        broker=broker,
        data=DataConfig(loader="common.learning.numpy_learner:no_images"),
        serving=ServingConfig(max_image_bytes=IMAGE_BYTES),
    )
    path.write_bytes(msgspec.json.encode(config))
    return [sys.executable, "-m", "device", program, "--config", str(path)]


@pytest.mark.process
@pytest.mark.parametrize(
    ("program", "protocol"), [*itertools.product(["run", "serve"], ["auto", "3.1.1"]), ("coordinator", "auto")]
)
def test_250_mb_of_a_broker_leave_a_program_under_100_mb(
    tmp_path: Path, program: str, protocol: Literal["auto", "3.1.1"]
) -> None:
    log = tmp_path / "log"
    with RulelessBroker(huge) as broker, log.open("w") as out:
        line = command(program, tmp_path, broker.port, protocol)
        process = subprocess.Popen(line, stdout=out, stderr=out, text=True)
        try:
            broker.until_closed(2)
            assert process.poll() is None, log.read_text()
            assert peak_mb(process) < MOST_MB
            assert re.search(r"the broker sent a packet of 2500000\d\d bytes; at most \d+ are taken", log.read_text())
        finally:
            process.kill()
            process.wait()


def await_(inbox: Inbox, kind: type) -> object:
    end = time.monotonic() + WAIT_S
    while (left := end - time.monotonic()) > 0:
        if isinstance(event := inbox.get(left), kind):
            return event
    raise AssertionError(f"no {kind.__name__} came")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_packet_of_the_limit_is_taken_and_a_larger_one_ends_the_connection(protocol: Literal["5", "3.1.1"]) -> None:
    name = topic(Kind.DEV_CMD, "lab", device="rpi1")
    room = PACKET_MOST - len(name) - 2 - (protocol == "5")

    def talk(name: str, is_v5: bool) -> Iterator[bytes]:
        yield from publish(name, room, is_v5=is_v5)
        yield from publish(name, room + 1, is_v5=is_v5)

    with RulelessBroker(talk) as broker:
        inbox = Inbox()
        link = Link("odd", "odd", BrokerConfig(port=broker.port, protocol=protocol), inbox)
        link.start()
        await_(inbox, Up)
        link.subscribe(name)
        received = await_(inbox, Received)
        down = await_(inbox, Down)
        link.stop()
    assert isinstance(received, Received)
    assert len(received.payload) == room
    assert isinstance(down, Down)
    assert f"a packet of {PACKET_MOST + 1} bytes" in down.reason
    assert down.is_lasting


def test_a_connection_announces_what_it_takes() -> None:
    with RulelessBroker(huge) as broker:
        for most in (PACKET_MOST, 2**24):
            inbox = Inbox()
            link = Link("odd", "odd", BrokerConfig(port=broker.port, protocol="5"), inbox)
            link.start(most)
            await_(inbox, Up)
            link.stop()
        with Connection(BrokerConfig(port=broker.port), Session("check", "5")):
            pass
    assert [announced(connect) for connect in broker.connects] == [PACKET_MOST, 2**24, TOP_BYTES + PACKET_OVERHEAD]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_check_of_a_broker_reads_nothing_too_large(protocol: Literal["5", "3.1.1"]) -> None:
    with RulelessBroker(huge) as broker, Connection(BrokerConfig(port=broker.port), Session("check", protocol)) as made:
        made.subscribe("fedpi/2/lab/dev/rpi1/status")
        broker.until_closed()
        assert made.receive(0.0) is None
        assert made.is_closed


def test_messages_by_qos_2_are_not_kept() -> None:
    with RulelessBroker(lambda name, is_v5: publish(name, 1000, is_v5=is_v5, first=QOS_2)) as broker:
        inbox = Inbox()
        link = Link("odd", "odd", BrokerConfig(port=broker.port, protocol="5"), inbox)
        link.start()
        await_(inbox, Up)
        link.subscribe("fedpi/2/lab/coord/status")
        await_(inbox, Subscribed)
        down = await_(inbox, Down)
        link.stop()
    assert isinstance(down, Down)
    assert down.reason.endswith("the broker sent a message by QoS 2, to which nobody subscribed")


def test_a_broker_that_goes_on_so_is_asked_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def note(_least: float, longest: float) -> float:
        pauses.append(longest)
        return 0.0

    monkeypatch.setattr("common.link.random.uniform", note)
    with RulelessBroker(huge) as broker:
        inbox = Inbox()
        link = Link("odd", "odd", BrokerConfig(port=broker.port, protocol="5"), inbox)
        link.start()
        for _ in range(4):
            await_(inbox, Up)
            link.subscribe("fedpi/2/lab/coord/status")
        link.stop()
    assert pauses[:3] == [1.0, 2.0, 4.0]
