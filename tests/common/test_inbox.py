"""The one queue between the network's threads and a process's loop."""

import threading

from common.inbox import OVERHEAD_BYTES, Inbox
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
        inbox.put(message(bytes(10)))
    assert inbox.dropped == 2
    assert len(drain(inbox)) == 3


def test_empty_messages_count_too() -> None:
    inbox = Inbox(limit_bytes=10 * OVERHEAD_BYTES)
    for _ in range(11):
        inbox.put(message(b""))
    assert inbox.dropped == 1


def test_what_is_no_message_is_never_dropped() -> None:
    inbox = Inbox(limit_bytes=0)
    inbox.put(message(b"x"))
    inbox.put(Room("bulk"))
    assert drain(inbox) == [Room("bulk")]


def test_room_returns_as_messages_are_taken() -> None:
    inbox = Inbox(limit_bytes=OVERHEAD_BYTES + 10)
    for _ in range(50):
        inbox.put(message(bytes(10)))
        assert inbox.get(0) is not None
    assert inbox.dropped == 0


def test_threads_lose_nothing() -> None:
    inbox = Inbox(limit_bytes=2**30)

    def fill() -> None:
        for _ in range(500):
            inbox.put(message(bytes(9)))

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    taken = [inbox.get(5.0) for _ in range(2000)]
    assert None not in taken
    assert inbox.get(0) is None
    for thread in threads:
        thread.join()
