"""What a connection may carry."""

from dataclasses import dataclass

WINDOW = 20
"""Unacknowledged publishes; the smallest in-flight queue of a broker in `docs/brokers.md`."""
PACKET_OVERHEAD = 1024
"""Room in a packet for topic, properties and our own message around a chunk's data."""

CHUNK_LEAST = 2**12
"""Bytes of the smallest chunk that the protocol has."""
CHUNK_MOST = 2**18
"""Bytes of the largest chunk that the protocol has."""
PACKET_LEAST = CHUNK_LEAST + PACKET_OVERHEAD
"""Bytes of a packet that a broker must carry."""
PACKET_MOST = 2**21
"""Bytes of a packet that a connection takes, unless it is for images.

No message of fedpi's is as large as a quarter of it; but it is what common brokers carry by default. Mosquitto drops a
packet that its receiver does not take, and holds its place in the receiver's window for ever: 20 in a row end all
delivery by QoS 1 to that receiver.
"""


@dataclass(frozen=True)
class Limits:
    """What this connection may carry: MQTT version, bytes of one packet, unacknowledged publishes."""

    protocol: str
    packet_bytes: int | None
    window: int

    @property
    def text(self) -> str:
        """What to log of it."""
        known = "unknown: this broker announces none, broker.packet_limit_bytes names one"
        return f"mqtt={self.protocol} packet_bytes={self.packet_bytes or known}"

    def chunk_bytes(self, wanted: int) -> int:
        """Bytes of chunk data that fit a packet here: `wanted` or less, a multiple of 1 KiB, at least 4 KiB."""
        if self.packet_bytes is None:
            return wanted
        return max(min(wanted, (self.packet_bytes - PACKET_OVERHEAD) // 1024 * 1024), CHUNK_LEAST)
