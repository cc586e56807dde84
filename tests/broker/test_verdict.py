"""The judgement over findings, without a broker."""

from dataclasses import replace

import pytest

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
from broker.verdict import judge
from common.config import TransferConfig

GOOD = Findings(
    address="127.0.0.1:1883",
    announced=Announced(("5", "3.1.1"), packet_bytes=2**21, receive_maximum=20),
    round_trip=RoundTrip(is_delivered=True, milliseconds=1.0),
    reaches_wildcard=True,
    retained=Retained(is_delivered=True, is_repeated=False),
    will=LastWill(is_delivered=True, is_retained=True, seconds=0.1),
    packet_limit=PacketLimit(2**20, "not tried"),
    throughput=Throughput(2**16, 128, 128, 100.0),
    slow=Queue(1500, 1500, is_ordered=True),
    offline=Queue(1500, 1500, is_ordered=True),
    seconds=2.0,
)


def test_good_broker_needs_no_settings() -> None:
    verdict = judge(GOOD)
    assert verdict.runs
    assert (verdict.failures, verdict.notes, verdict.settings) == ((), (), {})


@pytest.mark.parametrize(
    ("findings", "word"),
    [
        (replace(GOOD, round_trip=RoundTrip(is_delivered=False)), "QoS 1"),
        (replace(GOOD, announced=Announced(("5",), maximum_qos=0)), "QoS 1"),
        (replace(GOOD, retained=Retained(is_delivered=False, is_repeated=False)), "retained message"),
        (replace(GOOD, will=LastWill(is_delivered=False, is_retained=True)), "does not come"),
        (replace(GOOD, will=LastWill(is_delivered=True, is_retained=False)), "not retained"),
        (replace(GOOD, reaches_wildcard=False), "'+'"),
        (replace(GOOD, packet_limit=PacketLimit(5119, "lost in silence")), "5119"),
    ],
)
def test_each_hard_requirement_alone_keeps_fedpi_from_running(findings: Findings, word: str) -> None:
    verdict = judge(findings)
    assert not verdict.runs
    assert len(verdict.failures) == 1
    assert word in verdict.failures[0]


def test_smallest_packet_limit_that_carries_a_chunk_is_enough() -> None:
    verdict = judge(replace(GOOD, packet_limit=PacketLimit(5120, "connection closed")))
    assert verdict.runs
    assert verdict.settings == {"broker.packet_limit_bytes": 5120}


def test_short_queue_lowers_the_credit_and_never_below_what_the_key_allows() -> None:
    assert judge(replace(GOOD, slow=Queue(1500, 30, is_ordered=True))).settings == {"transfer.credit_chunks": 15}
    assert judge(replace(GOOD, slow=Queue(1500, 0, is_ordered=True))).settings == {"transfer.credit_chunks": 2}
    assert judge(replace(GOOD, slow=Queue(1500, 1020, is_ordered=True))).settings == {}
    assert judge(replace(GOOD, slow=Queue(1500, 200, is_ordered=True))).settings == {}
    least = 2 * TransferConfig().credit_chunks
    assert judge(replace(GOOD, slow=Queue(1500, least - 1, is_ordered=True))).settings != {}
    assert judge(replace(GOOD, slow=Queue(40, 40, is_ordered=True))).settings == {}  # a slow link, nothing lost


def test_what_fedpi_does_not_mind_is_a_note_only() -> None:
    verdict = judge(
        replace(
            GOOD,
            announced=Announced(("3.1.1",)),
            retained=Retained(is_delivered=True, is_repeated=True),
            offline=Queue(1500, 0, is_ordered=True),
            slow=Queue(1500, 1500, is_ordered=False),
        )
    )
    assert verdict.runs
    assert len(verdict.notes) == 4
    assert verdict.settings == {}
