"""What a process's loop waits for: sockets, and events from other threads."""

import socket
import threading
import time

import pytest

from common.inbox import OVERHEAD_BYTES, PAUSE_S, Inbox
from common.link import Received, Room


def message(payload: bytes) -> Received:
    return Received("bulk", "topic", payload)


def drain(inbox: Inbox) -> list[object]:
    return list(iter(lambda: inbox.get(0), None))


def test_events_come_out_in_their_order() -> None:
    inbox = Inbox()
    events = [message(b"a"), Room("bulk"), message(b"b")]
    for event in events:
        inbox.put(event)
    assert drain(inbox) == events


def test_an_empty_inbox_answers_in_time() -> None:
    assert Inbox().get(0) is None
    assert Inbox().get(-1) is None
    assert Inbox().get(0.001) is None


def test_a_flood_of_messages_is_dropped_at_the_bound_and_counted() -> None:
    inbox = Inbox(limit_bytes=3 * (OVERHEAD_BYTES + 10))
    for _ in range(5):
        inbox.put(message(bytes(10)), 10)
    assert inbox.dropped == 2
    assert len(drain(inbox)) == 3


def test_empty_messages_count_too() -> None:
    inbox = Inbox(limit_bytes=10 * OVERHEAD_BYTES)
    for _ in range(11):
        inbox.put(message(b""), 0)
    assert inbox.dropped == 1


def test_what_is_no_message_is_never_dropped() -> None:
    inbox = Inbox(limit_bytes=0)
    inbox.put(message(b"x"), 1)
    inbox.put(Room("bulk"))
    assert drain(inbox) == [Room("bulk")]


def test_room_returns_as_messages_are_taken() -> None:
    inbox = Inbox(limit_bytes=OVERHEAD_BYTES + 10)
    for _ in range(50):
        inbox.put(message(bytes(10)), 10)
        assert inbox.get(0) is not None
    assert inbox.dropped == 0


def test_threads_lose_nothing() -> None:
    inbox = Inbox(limit_bytes=2**30)

    def fill() -> None:
        for _ in range(500):
            inbox.put(message(bytes(9)), 9)

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken = [inbox.get(5.0) for _ in range(2000)]
    assert None not in taken
    assert inbox.get(0) is None
    for thread in threads:
        thread.join()


class Pipe:
    """A source over one end of a socket pair."""

    def __init__(self, inbox: Inbox) -> None:
        self.far, self.near = socket.socketpair()
        self.inbox = inbox
        self.to_write: list[bytes] = []
        self.is_open = True
        self.tended = 0

    def descriptor(self) -> int | None:
        return self.near.fileno() if self.is_open else None

    def has_pending(self) -> bool:
        return False

    def wants_write(self) -> bool:
        return bool(self.to_write)

    def read(self) -> None:
        payload = self.near.recv(100)
        self.inbox.put(message(payload), len(payload))

    def write(self) -> None:
        self.near.send(self.to_write.pop(0))

    def tend(self) -> None:
        self.tended += 1


def test_a_source_is_read_and_written_by_the_thread_that_gets() -> None:
    inbox = Inbox()
    pipe = Pipe(inbox)
    inbox.attach(pipe)
    pipe.far.send(b"hello")
    assert inbox.get(5.0) == message(b"hello")
    pipe.to_write.append(b"answer")
    assert inbox.get(0.01) is None
    assert pipe.far.recv(100) == b"answer"
    assert pipe.tended == 1


def test_events_that_wait_come_before_what_the_sources_hold() -> None:
    inbox = Inbox()
    pipe = Pipe(inbox)
    inbox.attach(pipe)
    pipe.far.send(b"later")
    inbox.put(Room("bulk"))
    assert inbox.get(0) == Room("bulk")
    assert inbox.get(5.0) == message(b"later")


def test_serving_keeps_the_events_for_later() -> None:
    inbox = Inbox()
    pipe = Pipe(inbox)
    inbox.attach(pipe)
    pipe.far.send(b"kept")
    inbox.serve(5.0)
    assert inbox.get(0) == message(b"kept")


def test_another_thread_ends_the_wait() -> None:
    inbox = Inbox()
    pipe = Pipe(inbox)
    pipe.is_open = False
    inbox.attach(pipe)

    def open_and_say() -> None:
        pipe.is_open = True
        pipe.far.send(b"new")
        inbox.wake()

    threading.Timer(0.05, open_and_say).start()
    started = time.monotonic()
    assert inbox.get(30.0) == message(b"new")
    assert time.monotonic() - started < 10.0


def test_a_pause_in_which_nobody_listened_is_told_once() -> None:
    inbox = Inbox()
    now = time.monotonic() + 0.1
    assert inbox.missed_s(now) == 0.0
    assert inbox.missed_s(now + PAUSE_S) == 0.0
    assert inbox.missed_s(now + PAUSE_S + 7.5) == pytest.approx(7.5)
    assert inbox.missed_s(now + PAUSE_S + 7.5) == 0.0
