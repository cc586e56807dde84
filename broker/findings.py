"""What a broker was seen to do: a frozen record for each question."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Announced:
    """The protocols of those tried that a broker speaks on this port, and what its CONNACK says, if anything.

    Sizes in bytes, `receive_maximum` in unacknowledged publishes.
    """

    protocols: tuple[str, ...]
    tried: tuple[str, ...] = ("5", "3.1.1")
    packet_bytes: int | None = None
    receive_maximum: int | None = None
    keepalive_s: int | None = None
    maximum_qos: int | None = None
    has_retain: bool | None = None
    has_wildcards: bool | None = None


@dataclass(frozen=True)
class RoundTrip:
    """Whether a QoS 1 publish comes back to its sender, and the median time of that."""

    is_delivered: bool
    milliseconds: float = 0.0


@dataclass(frozen=True)
class PacketLimit:
    """The largest packet, in bytes and with its header, seen to arrive, and what became of a larger one."""

    arrived_bytes: int
    beyond: Literal["not tried", "connection closed", "refused", "lost in silence"]


@dataclass(frozen=True)
class Throughput:
    """Chunks of `chunk_bytes` from one publisher to one subscriber: the rate, and how many came."""

    chunk_bytes: int
    sent: int
    arrived: int
    megabytes_s: float


@dataclass(frozen=True)
class Queue:
    """How many of the acknowledged messages reached a subscriber who was away or slow, and in which order."""

    sent: int
    arrived: int
    is_ordered: bool


@dataclass(frozen=True)
class Retained:
    """Whether a new subscriber of the exact topic gets the retained message, and others get it once more."""

    is_delivered: bool
    is_repeated: bool


@dataclass(frozen=True)
class LastWill:
    """Whether the will came after a lost connection, how soon, and whether it is retained."""

    is_delivered: bool
    is_retained: bool
    seconds: float = 0.0


@dataclass(frozen=True)
class Findings:
    """The answers to all questions about the broker at `address`."""

    address: str
    announced: Announced
    round_trip: RoundTrip
    reaches_wildcard: bool
    retained: Retained
    will: LastWill
    packet_limit: PacketLimit
    throughput: Throughput
    slow: Queue
    offline: Queue
    seconds: float
