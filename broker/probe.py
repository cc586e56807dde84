"""Asks a live broker, by trying, what a federation needs to know: one function a question.

It speaks on topics of the table, in a federation of its own, so that our ACL lets the coordinator's
user do it; what it left behind is removed. A check takes about 3 s on a broker nearby.
"""

import secrets
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from broker.connection import ANSWER_S, TOP_BYTES, Connection, Message, Session
from broker.findings import (
    Announced,
    Findings,
    LastWill,
    PacketLimit,
    Queue,
    Retained,
    RoundTrip,
    Throughput,
)
from common.config import BrokerConfig
from common.errors import ConfigError, LinkError
from common.limits import PACKET_OVERHEAD
from common.link import Will
from common.names import address
from common.topics import Kind, topic
from common.troubles import of_port

PROTOCOLS = ("5", "3.1.1")
ROUND_TRIPS = 20
MESSAGES = 1500
WINDOW_MAX = 100
FLOOR_BYTES = 1024
RESOLUTION_BYTES = 1024
CHUNK_BYTES, CHUNKS = 2**16, 128
QUIET_S = 1.0
ROUND_TRIP_S, TRIAL_S, BISECT_S, TRANSFER_S, QUEUE_S = 1.0, 3.0, 5.0, 2.0, 3.0
"""Limits of a single question, so that a slow broker ends the check in about 20 s."""


@dataclass
class Asker:
    """Makes connections and topics for the questions. `protocol` is the best that the broker speaks."""

    broker: BrokerConfig
    protocol: str
    federation: str
    window: int = 20
    made: int = 0

    def connect(self, *, client_id: str | None = None, is_kept: bool = False, will: Will | None = None) -> Connection:
        """Prepare a connection, with a client id of its own unless it is to meet a kept session."""
        self.made += 1
        name = client_id or f"{self.federation}-{self.made}"
        return Connection(self.broker, Session(name, self.protocol, is_kept, will))

    def topic(self, kind: Kind, *, device: str = "rpi1", blob: str = "0" * 16) -> str:
        """Name a topic of this check."""
        return topic(kind, self.federation, device=device, blob=blob)


def check(broker: BrokerConfig, progress: Callable[[str], None]) -> Findings:
    """Ask everything; `progress` hears which question is being asked.

    Raises LinkError where no broker answers, ConfigError where the login is refused or not enough.
    """
    started = time.monotonic()
    federation = f"check-{secrets.token_hex(4)}"
    progress("protocols")
    announced = ask_protocols(broker, federation)
    asker = Asker(broker, announced.protocols[0], federation, min(announced.receive_maximum or 20, WINDOW_MAX))
    progress("round trip")
    round_trip = ask_round_trip(asker)
    try:
        progress("wildcards, retained messages, will")
        reaches_wildcard, retained, will = ask_wildcard(asker), ask_retained(asker), ask_will(asker)
        progress("packet limit")
        limit = ask_packet_limit(asker, announced.packet_bytes)
        progress("throughput")
        throughput = ask_throughput(asker, limit.arrived_bytes)
        progress("queues")
        slow, offline = ask_slow_queue(asker), ask_offline_queue(asker)
    finally:
        clear(asker)
    return Findings(
        address=address(broker.host, broker.port),
        announced=announced,
        round_trip=round_trip,
        reaches_wildcard=reaches_wildcard,
        retained=retained,
        will=will,
        packet_limit=limit,
        throughput=throughput,
        slow=slow,
        offline=offline,
        seconds=round(time.monotonic() - started, 1),
    )


def ask_protocols(broker: BrokerConfig, federation: str) -> Announced:
    """Ask which MQTT versions it speaks on this port, and what it announces."""
    spoken: dict[str, dict[str, int]] = {}
    refusal = None
    tried = PROTOCOLS if broker.protocol == "auto" else (broker.protocol,)
    for protocol in tried:
        try:
            with Connection(broker, Session(f"{federation}-0", protocol)) as connection:
                spoken[protocol] = connection.announced
        except LinkError as error:
            refusal = error
    if not spoken and refusal is not None:
        if (trouble := of_port(broker)) is not None:
            raise ConfigError(f"{address(broker.host, broker.port)}: {trouble.text}") from refusal
        raise refusal
    said = spoken.get("5", {})
    return Announced(
        protocols=tuple(spoken),
        tried=tried,
        packet_bytes=said.get("MaximumPacketSize"),
        receive_maximum=said.get("ReceiveMaximum"),
        keepalive_s=said.get("ServerKeepAlive"),
        maximum_qos=said.get("MaximumQoS"),
        has_retain=_flag(said.get("RetainAvailable")),
        has_wildcards=_flag(said.get("WildcardSubscriptionAvailable")),
    )


def _flag(value: int | None) -> bool | None:
    return None if value is None else value != 0


def ask_round_trip(asker: Asker) -> RoundTrip:
    """Ask whether a QoS 1 publish arrives, and how soon."""
    name = asker.topic(Kind.DEV_SAY)
    times: list[float] = []
    with asker.connect() as connection:
        connection.subscribe(name)
        for number in range(ROUND_TRIPS):
            if sum(times) > ROUND_TRIP_S:
                break
            sent_at = time.monotonic()
            connection.publish(name, number.to_bytes(2, "big"))
            message = connection.receive(ANSWER_S)
            if message is None:
                return RoundTrip(is_delivered=False)
            times.append(message.at - sent_at)
    return RoundTrip(is_delivered=True, milliseconds=round(1000 * statistics.median(times), 3))


def ask_wildcard(asker: Asker) -> bool:
    """Ask whether a `+` in the place of the device reaches every device's topic."""
    with asker.connect() as connection:
        connection.subscribe(asker.topic(Kind.DEV_SAY, device="+"))
        names = {asker.topic(Kind.DEV_SAY, device=device) for device in ("rpi1", "rpi2")}
        for name in names:
            connection.publish(name, b"hello")
        return {message.topic for message in connection.collect(2, ANSWER_S, ANSWER_S)} == names


def ask_retained(asker: Asker) -> Retained:
    """Ask whether a newcomer gets the retained message of an exact topic, and whether others get it again."""
    name = asker.topic(Kind.COORD_ROUND)
    with asker.connect() as publisher, asker.connect() as first, asker.connect() as second:
        publisher.publish(name, b"round", retain=True)
        first.subscribe(name)
        if first.receive(ANSWER_S) is None:
            return Retained(is_delivered=False, is_repeated=False)
        second.subscribe(name)
        is_delivered = second.receive(ANSWER_S) is not None
        return Retained(is_delivered, is_repeated=first.receive(QUIET_S / 2) is not None)


def ask_will(asker: Asker) -> LastWill:
    """Ask whether the will comes when a connection is lost without a word, and stays as retained."""
    name = asker.topic(Kind.DEV_STATUS)
    with asker.connect() as watcher:
        watcher.subscribe(name)
        try:
            with asker.connect(will=Will(name, b"offline")) as lost:
                lost_at = time.monotonic()
                lost.vanish()
        except LinkError:
            return LastWill(is_delivered=False, is_retained=False)  # a connection with such a will is refused
        message = watcher.receive(ANSWER_S)
    if message is None:
        return LastWill(is_delivered=False, is_retained=False)
    with asker.connect() as newcomer:
        newcomer.subscribe(name)
        retained = newcomer.receive(ANSWER_S)
    return LastWill(True, retained is not None, round(message.at - lost_at, 3))


Outcome = Literal["arrived", "connection closed", "refused", "lost in silence"]


def ask_packet_limit(asker: Asker, announced: int | None) -> PacketLimit:
    """Ask how large a packet may be: the announced limit or the top, else halve the gap below it."""
    top = min(announced or TOP_BYTES, TOP_BYTES)
    end = time.monotonic() + BISECT_S
    outcome = _try_packet(asker, top)
    if outcome == "arrived":
        return PacketLimit(top, "not tried")
    low, high = 0, top
    size, beyond = FLOOR_BYTES, outcome
    while time.monotonic() < end:
        outcome = _try_packet(asker, size)
        if outcome == "arrived":
            low = size
        else:
            high, beyond = size, outcome
        if low == 0 or high - low <= RESOLUTION_BYTES:
            break
        size = (low + high) // 2
    return PacketLimit(low, beyond)


def _try_packet(asker: Asker, size: int) -> Outcome:
    """Send one packet of `size` bytes to ourselves, on a connection of its own, which it may cost."""
    name = asker.topic(Kind.BLOB)
    with asker.connect() as connection:
        connection.subscribe(name)
        sent_at = time.monotonic()
        mid = connection.send(name, bytes(payload_bytes(size, name, asker.protocol)))
        accepted_at = None
        while not connection.is_closed and time.monotonic() < sent_at + TRIAL_S:
            if connection.receive(0.02) is not None:
                return "arrived"
            fate = connection.fate(mid)
            if fate == "refused":
                return "refused"
            if fate == "accepted":
                accepted_at = accepted_at or time.monotonic()
                # What the broker passes on comes back in about the time that the way there took.
                if time.monotonic() - accepted_at > 0.5 + 2 * (accepted_at - sent_at):
                    break
        return "connection closed" if connection.is_closed else "lost in silence"


def payload_bytes(packet: int, name: str, protocol: str) -> int:
    """Length of the payload that makes a QoS 1 PUBLISH of `packet` bytes (MQTT 5, sections 2.1.4 and 3.3)."""
    after_header = 2 + len(name) + 2 + (1 if protocol == "5" else 0)
    length_bytes = next(n for n in range(1, 5) if packet - 1 - n < 128**n)
    return max(packet - 1 - length_bytes - after_header, 0)


def ask_throughput(asker: Asker, packet_limit: int) -> Throughput:
    """Ask how fast chunks of the usual size flow from one connection to another."""
    size = max(min(CHUNK_BYTES, packet_limit - PACKET_OVERHEAD), 1)
    name = asker.topic(Kind.BLOB)
    with asker.connect() as publisher, asker.connect() as subscriber:
        subscriber.subscribe(name)
        started = time.monotonic()
        sent = publisher.publish_all(name, [bytes(size)] * CHUNKS, min(asker.window, 10), TRANSFER_S)
        messages = subscriber.collect(sent, QUIET_S, TRANSFER_S)
    elapsed = messages[-1].at - started if messages else 1.0
    return Throughput(size, sent, len(messages), round(len(messages) * size / elapsed / 1e6, 1))


def ask_slow_queue(asker: Asker) -> Queue:
    """Ask how many messages it keeps for a subscriber who is connected and does not keep up."""
    name = asker.topic(Kind.DEV_UP)
    with asker.connect() as publisher, asker.connect() as subscriber:
        subscriber.subscribe(name)
        subscriber.pause()
        sent = publisher.publish_all(name, _numbered(), asker.window, QUEUE_S)
        subscriber.resume()
        return _queue(sent, subscriber.collect(sent, QUIET_S, QUEUE_S))


def ask_offline_queue(asker: Asker) -> Queue:
    """Ask how many messages it keeps for a session whose subscriber is away."""
    name = asker.topic(Kind.DEV_CMD)
    client_id = f"{asker.federation}-kept"
    with asker.connect(client_id=client_id, is_kept=True) as subscriber:
        subscriber.subscribe(name)
    with asker.connect() as publisher:
        sent = publisher.publish_all(name, _numbered(), asker.window, QUEUE_S)
    with asker.connect(client_id=client_id, is_kept=True) as subscriber:
        found = _queue(sent, subscriber.collect(sent, QUIET_S, QUEUE_S))
    with asker.connect(client_id=client_id):
        pass  # a clean start ends the kept session
    return found


def _numbered() -> list[bytes]:
    return [number.to_bytes(4, "big") for number in range(MESSAGES)]


def _queue(sent: int, messages: list[Message]) -> Queue:
    numbers = [int.from_bytes(message.payload, "big") for message in messages]
    return Queue(sent, len(set(numbers)), numbers == sorted(numbers))


def clear(asker: Asker) -> None:
    """Remove the retained messages of this check."""
    with asker.connect() as connection:
        for kind in (Kind.COORD_ROUND, Kind.DEV_STATUS):
            connection.publish(asker.topic(kind), b"", retain=True)
