"""What the broker keeps: published when it changes, again on demand, and never in a packet that it does not carry."""

import logging

import pytest

from coordinator.retained import HEADER_BYTES, Retained


class Broker:
    """Keeps what is published, as long as it is connected."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.is_connected = True
        self.signatures = 0

    def publish(self, name: str, payload: bytes, *, retain: bool) -> bool:
        assert retain
        if self.is_connected:
            self.published.append((name, payload))
        return self.is_connected

    def sign(self, _name: str, document: bytes) -> bytes:
        self.signatures += 1
        return document + b"%d" % self.signatures


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def retained(broker: Broker) -> Retained:
    return Retained(broker.publish, broker.sign)


def test_a_document_is_published_when_it_changes_and_a_new_signature_is_no_change(
    retained: Retained, broker: Broker
) -> None:
    for document in (b"one", b"one", b"two", b"one"):
        retained.put("status", document, None)
    retained.put("round", b"one", None)
    assert broker.published == [("status", b"one1"), ("status", b"two2"), ("status", b"one3"), ("round", b"one4")]


def test_all_is_published_again_where_the_broker_may_have_come_back_empty(retained: Retained, broker: Broker) -> None:
    for _ in range(2):
        retained.put("status", b"one", None)
        retained.expire()
    assert len(broker.published) == 2


def test_what_found_no_connection_is_published_later(retained: Retained, broker: Broker) -> None:
    broker.is_connected = False
    retained.put("status", b"one", None)
    broker.is_connected = True
    retained.put("status", b"one", None)
    assert broker.published == [("status", b"one2")]


def test_a_document_too_large_for_the_broker_is_named_once_and_left_out(
    retained: Retained, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    least = len("status") + len(b"x" * 50 + b"1") + HEADER_BYTES
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            retained.put("status", b"x" * 50, least - 1)
            retained.expire()
    (line,) = caplog.messages
    assert line == f"topic=status not published: it needs a packet of {least} bytes, the limit is {least - 1}"
    assert broker.published == []
    retained.put("status", b"x" * 50, least)
    assert broker.published == [("status", b"x" * 50 + b"4")]


def test_what_is_taken_out_can_come_back(retained: Retained, broker: Broker) -> None:
    retained.put("device", b"one", None, is_signed=False)
    retained.remove("device")
    retained.put("device", b"one", None, is_signed=False)
    assert [payload for _, payload in broker.published] == [b"one", b"", b"one"]
