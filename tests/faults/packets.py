"""MQTT packets as bytes: as much of versions 3.1.1 and 5 as a proxy must read. Pure."""

from dataclasses import dataclass

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4


@dataclass(frozen=True)
class Publish:
    """A PUBLISH packet taken apart; `packet_id` is 0 with QoS 0, `at` is where the payload begins in the packet."""

    topic: str
    packet_id: int
    payload: bytes
    at: int


class Framer:
    """Cuts a stream into packets, however it was cut into reads."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the packets that `data` completes."""
        data = self._rest + data
        packets, start = [], 0
        while (size := _size(data, start)) is not None and start + size <= len(data):
            packets.append(data[start : start + size])
            start += size
        self._rest = data[start:]
        return packets


def kind(packet: bytes) -> int:
    """Return the packet's type, 1 to 15."""
    return packet[0] >> 4


def client_id(connect: bytes) -> str:
    """Return the client id of a CONNECT."""
    at, size = _client_id_span(connect)
    return connect[at : at + size].decode()


def with_client_id(connect: bytes, name: str) -> bytes:
    """Return a CONNECT under another client id."""
    at, size = _client_id_span(connect)
    raw = name.encode()
    body = connect[_header(connect) : at - 2] + len(raw).to_bytes(2, "big") + raw + connect[at + size :]
    return connect[:1] + _varint(len(body)) + body


def is_accepted(connack: bytes) -> bool:
    """Whether a CONNACK lets the client in."""
    return connack[_header(connack) + 1] == 0


def parse_publish(packet: bytes, *, is_v5: bool) -> Publish:
    """Take a PUBLISH apart."""
    at = _header(packet)
    size = int.from_bytes(packet[at : at + 2], "big")
    topic = packet[at + 2 : at + 2 + size].decode()
    at += 2 + size
    packet_id = 0
    if packet[0] & 0b110:
        packet_id = int.from_bytes(packet[at : at + 2], "big")
        at += 2
    if is_v5:
        length, width = _read_varint(packet, at)
        at += width + length
    return Publish(topic, packet_id, packet[at:], at)


def with_payload(packet: bytes, publish: Publish, payload: bytes) -> bytes:
    """Return the PUBLISH `packet`, taken apart as `publish`, with another payload."""
    body = packet[_header(packet) : publish.at] + payload
    return packet[:1] + _varint(len(body)) + body


def puback(packet_id: int) -> bytes:
    """Return the PUBACK that says Success, the same in both versions."""
    return bytes([PUBACK << 4, 2]) + packet_id.to_bytes(2, "big")


def speaks_v5(connect: bytes) -> bool:
    """Whether a CONNECT is one of MQTT 5."""
    return connect[_header(connect) + 6] == 5


def _client_id_span(connect: bytes) -> tuple[int, int]:
    at = _header(connect) + 10  # protocol name (6), level (1), flags (1), keep alive (2)
    if speaks_v5(connect):
        length, width = _read_varint(connect, at)
        at += width + length
    return at + 2, int.from_bytes(connect[at : at + 2], "big")


def _size(data: bytes, start: int) -> int | None:
    """Return the whole length of the packet at `start`, None while its header is incomplete."""
    header = data[start + 1 : start + 5]
    if not any(byte < 0x80 for byte in header):
        return None
    length, width = _read_varint(data, start + 1)
    return 1 + width + length


def _header(packet: bytes) -> int:
    return 1 + _read_varint(packet, 1)[1]


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a variable byte integer and its width."""
    value, width = 0, 0
    while True:
        byte = data[at + width]
        value |= (byte & 0x7F) << 7 * width
        width += 1
        if byte < 0x80:
            return value, width


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, byte = divmod(value, 128)
        out.append(byte | 0x80 if value else byte)
        if not value:
            return bytes(out)
