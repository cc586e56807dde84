"""What a device may send and ask for, and who is named for more."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.blobs import BlobStore
from common.chunks import full, layout_of, to_wire
from common.config import TransferConfig
from common.messages import DeviceStatus, Hello, Want, encode, encode_story
from common.topics import Kind, parse, topic
from coordinator import budgets as budgets_module
from coordinator.budgets import (
    MESSAGES,
    NAMED_EVERY_S,
    OFFERS,
    WANTED_STREAM_S,
    WANTED_STREAMS,
    Budget,
    Budgets,
    OverBudgetError,
)
from coordinator.distributor import Distributor
from coordinator.reception import SEEN_EVERY_S, Reception
from coordinator.store import Store

CHUNK, CHUNKS = 4096, 100


def spent(budgets: Budgets, budget: Budget, count: int, now: float, device: str = "pi") -> int:
    """Send `count` messages; returns how many of them were within the budget."""
    passed = 0
    for _ in range(count):
        try:
            budgets.spend(device, budget, now)
        except OverBudgetError:
            continue
        passed += 1
    return passed


@pytest.mark.parametrize("budget", [MESSAGES, OFFERS])
def test_a_budget_is_used_up_and_grows_again(budget: Budget) -> None:
    budgets, most = Budgets(), int(budget.most)
    assert spent(budgets, budget, 2 * most, 10.0) == most
    assert spent(budgets, budget, 2 * most, 15.0) == 5 * budget.a_second
    assert spent(budgets, budget, 2 * most, 1e6) == most


def test_one_device_does_not_use_up_the_budget_of_another_nor_one_budget_another() -> None:
    budgets = Budgets()
    spent(budgets, MESSAGES, 2000, 0.0)
    assert spent(budgets, MESSAGES, 1, 0.0, device="other") == 1
    assert spent(budgets, OFFERS, 1, 0.0) == 1


def test_who_exceeds_a_budget_is_named_once_a_minute() -> None:
    budgets = Budgets()
    spent(budgets, MESSAGES, 1003, 0.0)
    assert budgets.to_name(0.1) == ["device=pi exceeds its budget of messages: 3 dropped"]
    for now in (1.0, 2.0, NAMED_EVERY_S - 1):
        assert spent(budgets, MESSAGES, 5000, now) < 5000
        assert budgets.to_name(now) == []
    (told,) = budgets.to_name(NAMED_EVERY_S + 1)
    assert told.startswith("device=pi exceeds its budget of messages: ")
    assert budgets.to_name(10 * NAMED_EVERY_S) == []


def test_of_a_wish_beyond_the_budget_the_lowest_chunks_are_granted() -> None:
    budgets, whole = Budgets(), full(CHUNKS)
    for _ in range(WANTED_STREAMS - 1):
        assert budgets.grant("pi", "blob", CHUNKS, whole, 0.0) == whole
    assert budgets.grant("pi", "blob", CHUNKS, full(70), 0.0) == full(70)
    assert budgets.to_name(0.0) == []
    assert budgets.grant("pi", "blob", CHUNKS, whole, 0.0) == full(30)
    assert budgets.to_name(0.0) == ["device=pi exceeds its budget of chunks wanted: 1 dropped"]
    assert budgets.grant("pi", "another blob", CHUNKS, whole, 0.0) == whole
    assert budgets.grant("pi", "blob", CHUNKS, whole, WANTED_STREAM_S) == whole


@given(
    wishes=st.lists(st.tuples(st.floats(0, 30), st.integers(0, full(CHUNKS))), max_size=60),
    total=st.integers(1, CHUNKS),
)
def test_no_sequence_of_wishes_draws_more_than_the_budget(wishes: list[tuple[float, int]], total: int) -> None:
    budgets, now, drawn = Budgets(), 0.0, 0
    for pause, bits in wishes:
        now += pause
        granted = budgets.grant("pi", "blob", total, bits & full(total), now)
        assert granted & ~bits == 0
        drawn += granted.bit_count()
    size = max(total, budgets_module.WANTED_LEAST)
    assert drawn <= WANTED_STREAMS * size + now / WANTED_STREAM_S * size + 1


def test_names_that_are_made_up_fill_no_memory() -> None:
    budgets = Budgets()
    spent(budgets, OFFERS, 100, 0.0, device="loud")
    for number in range(1000):
        budgets.spend(f"pi-{number}", OFFERS, 10.0 + 2 * number)
        assert len(budgets._allowances) <= 40  # noqa: SLF001 - what memory is about


class Bulk:
    """As much of a Link as the distributor needs; counts what is published."""

    def __init__(self) -> None:
        self.chunks = 0

    def room(self) -> int:
        return 10_000

    def publish(self, _name: str, _payload: bytes) -> None:
        self.chunks += 1


def test_twenty_wishes_for_a_whole_model_draw_four_of_it(tmp_path: Path) -> None:
    blobs, bulk, budgets = BlobStore(tmp_path / "models"), Bulk(), Budgets()
    (tmp_path / "draft").write_bytes(bytes(range(256)) * (CHUNKS * CHUNK // 256))
    ref = blobs.add(tmp_path / "draft", None, CHUNK)
    total = layout_of(ref).total
    distributor = Distributor("demo", TransferConfig(), bulk)  # type: ignore[arg-type]  # see there
    distributor.offer([(ref, blobs)])
    refused = 0
    for _ in range(20):
        try:
            distributor.gather(Want(device="pi", blob=ref.id, chunks=to_wire(full(total))), 0.0, budgets)
        except OverBudgetError:
            refused += 1
        distributor.release(frozenset({"pi"}), 1.0)
        distributor.publish()
    assert (bulk.chunks, refused) == (WANTED_STREAMS * total, 20 - WANTED_STREAMS)
    distributor.gather(Want(device="other", blob=ref.id, chunks=to_wire(full(total))), 2.0, budgets)
    distributor.gather(Want(device="third", blob=ref.id, chunks=to_wire(full(total))), 2.0, budgets)
    distributor.release(frozenset({"other", "third"}), 3.0)
    distributor.publish()
    assert bulk.chunks == (WANTED_STREAMS + 1) * total
    assert budgets.grant("third", ref.id, total, full(total), 3.0) == full(total), "it wished for what came anyway"


def test_every_message_counts_as_a_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("coordinator.reception.time.time", lambda: clock[0])
    store = Store(tmp_path / "journal.sqlite", create=True)
    reception = Reception("demo", store)
    status, say = (topic(kind, "demo", device="pi") for kind in (Kind.DEV_STATUS, Kind.DEV_SAY))
    reception.admit(parse(status), encode_story(DeviceStatus(device="pi", nonce="a", state="online")), None)
    reception.flush()
    seen = []
    for pause in (1.0, SEEN_EVERY_S, 1.0, SEEN_EVERY_S):
        clock[0] += pause
        reception.admit(parse(say), encode(Hello(device="pi", nonce="a")), None)
        reception.flush()
        (row,) = store.devices()
        seen.append(row.seen)
    assert seen == [1000.0, 1016.0, 1016.0, 1032.0]
    clock[0] += SEEN_EVERY_S
    reception.heard("pi")
    reception.flush()
    assert [row.seen for row in store.devices()] == [clock[0]]
