"""A bare MQTT 3.1.1 client over one socket, for `device.light`: it writes packets, cuts packets, and does no more.

Nothing reconnects, resends or waits for an acknowledgement here; `common.link` is what fedpi's own processes use.
"""

import socket
from collections.abc import Sequence
from contextlib import suppress

from common.errors import LinkError

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
_QOS_1, _RETAIN, _ACCEPTED = 0x02, 0x01, b"\x20\x02\x00\x00"
READ_BYTES = 2**18
ANSWER_S = 30.0


class LightClient:
    """One connection. Methods raise LinkError where it breaks."""

    def __init__(self, port: int, client_id: str, keepalive_s: int = 600) -> None:
        self.granted = 0
        """Subscriptions that the broker granted."""
        self._line = socket.create_connection(("127.0.0.1", port), ANSWER_S)
        self._line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._unsent = bytearray()
        self._unread = bytearray()
        self._last_id = 0
        clean = b"\x00\x04MQTT\x04\x02" + keepalive_s.to_bytes(2, "big")
        self._line.sendall(_packet(_CONNECT, clean + _text(client_id)))
        if (answer := self._line.recv(len(_ACCEPTED))) != _ACCEPTED:
            raise LinkError(f"the broker on port {port} answered a CONNECT with {answer.hex() or 'nothing'}")
        self._line.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._line.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether something waits to be written."""
        return bool(self._unsent)

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def subscribe(self, names: Sequence[str], qos: int = 1) -> None:
        """Subscribe to topics; `granted` counts what the broker answers."""
        self._send(_packet(_SUBSCRIBE, self._next_id() + b"".join(_text(name) + bytes([qos]) for name in names)))

    def publish(self, name: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish with QoS 1."""
        flags = _QOS_1 | (_RETAIN if retain else 0)
        self._send(_packet(_PUBLISH | flags, _text(name) + self._next_id() + payload))

    def write(self) -> None:
        """Write what fits of what waits."""
        with suppress(BlockingIOError):
            try:
                del self._unsent[: self._line.send(self._unsent)]
            except BlockingIOError:
                raise
            except OSError as error:
                raise LinkError(f"the connection broke: {error.strerror}") from error

    def read(self) -> list[tuple[str, bytes]]:
        """Read what is there; returns the topics and payloads of the messages, which are acknowledged."""
        try:
            data = self._line.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise LinkError(f"the connection broke: {error.strerror}") from error
        if not data:
            raise LinkError("the broker closed the connection")
        self._unread += data
        return [message for packet in _cut(self._unread) if (message := self._take(*packet)) is not None]

    def _take(self, head: int, body: bytes) -> tuple[str, bytes] | None:
        if head & 0xF0 == _PUBLISH:
            end = 2 + int.from_bytes(body[:2], "big")
            if not head & 0x06:
                return body[2:end].decode(), body[end:]
            self._send(_packet(_PUBACK, body[end : end + 2]))
            return body[2:end].decode(), body[end + 2 :]
        if head == _SUBACK:
            self.granted += len(body) - 2
        return None

    def _send(self, packet: bytes) -> None:
        self._unsent += packet
        self.write()

    def _next_id(self) -> bytes:
        self._last_id = self._last_id % 0xFFFF + 1
        return self._last_id.to_bytes(2, "big")


def _cut(unread: bytearray) -> list[tuple[int, bytes]]:
    """Take whole packets from the front of `unread`: their first byte, and what follows their length."""
    packets = []
    while len(unread) >= 2:
        size, at = 0, 1
        while at < len(unread):
            size |= (unread[at] & 0x7F) << 7 * (at - 1)
            at += 1
            if not unread[at - 1] & 0x80:
                break
        if unread[at - 1] & 0x80 or len(unread) < at + size:
            break
        packets.append((unread[0], bytes(unread[at : at + size])))
        del unread[: at + size]
    return packets


def _packet(head: int, body: bytes) -> bytes:
    size, length = len(body), bytearray()
    while True:
        size, digit = divmod(size, 128)
        length.append(digit | (0x80 if size else 0))
        if not size:
            return bytes([head]) + length + body


def _text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw
