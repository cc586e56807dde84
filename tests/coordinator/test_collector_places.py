"""Updates on their way in of more devices than have a place: who is asked, and who waits."""

from pathlib import Path

import pytest

from common.chunks import from_wire, indexes, layout_of
from coordinator.collector import Collector
from coordinator.events import Delivered
from tests.coordinator.senders import SPEC, TRANSFER, Device, bits_of, collector, deliver, device


def queue_of(tmp_path: Path, made: Collector, count: int) -> list[Device]:
    """Devices that have all offered their updates, in this order, and were asked as far as there are places."""
    senders = [device(tmp_path, f"pi-{n}", seed=n) for n in range(count)]
    for sender in senders:
        made.begin(sender.offer, SPEC, 0.0)
        made.wishes(0.0, sender.name)
    return senders


def test_a_freed_place_is_handed_on_with_the_chunk_that_frees_it(tmp_path: Path) -> None:
    made = collector(tmp_path)
    first, _, third, fourth = queue_of(tmp_path, made, 4)
    total = layout_of(first.offer.update).total
    verdicts, asked = list[object](), set[str]()
    for index in range(total):
        assert third.name not in asked, "there are two places, and two devices have them"
        verdicts.append(made.take(first.name, first.chunk(index), SPEC, 0.0))
        asked |= {want.device for want in made.wishes(0.0, first.name)}
    assert verdicts[-1] == Delivered(device=first.name, update=first.offer.update.id)
    assert third.name in asked
    assert fourth.name not in asked


def test_devices_behind_a_dead_switch_block_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = collector(tmp_path)
    *dead, lively = queue_of(tmp_path, made, 5)
    verdict, seconds = None, 0.0
    with caplog.at_level("INFO"):
        while not isinstance(verdict, Delivered):
            seconds += 0.25
            for want in made.wishes(seconds):
                for chunk in lively.answer(want) if want.device == lively.name else []:
                    verdict = made.take(lively.name, chunk, SPEC, seconds)
            assert seconds < 3 * TRANSFER.repair_s, "the dead ones hold all places"
    assert f"device={dead[0].name} is silent: its upload gives up its place" in caplog.text


def test_who_gave_up_a_place_goes_on_where_it_stopped(tmp_path: Path) -> None:
    made = collector(tmp_path)
    first, second, third = queue_of(tmp_path, made, 3)
    for index in range(4):
        made.take(first.name, first.chunk(index), SPEC, 0.0)
    made.offline(first.name)
    assert {want.device for want in made.wishes(0.0)} == {third.name}
    made.begin(first.offer, SPEC, 5.0)  # it is back, and says again what nobody has answered
    for sender in (second, third):
        deliver(made, sender)
    asked = [index for want in made.wishes(5.0, first.name) for index in indexes(from_wire(want.chunks, 99))]
    assert min(asked) == 4, "what came before is not asked for again"
    assert isinstance(deliver(made, first), Delivered)
    assert made.path(first.name, first.offer.update.id).read_bytes() == first.data


def test_a_late_chunk_of_who_gave_up_its_place_counts_and_brings_it_back(tmp_path: Path) -> None:
    made = collector(tmp_path)
    first, second, third = queue_of(tmp_path, made, 3)
    made.take(first.name, first.chunk(0), SPEC, 0.0)
    made.offline(first.name)
    made.wishes(0.0)
    before = made.received()[first.name]
    made.take(first.name, first.chunk(1), SPEC, 1.0)
    assert made.received()[first.name] > before
    made.offline(second.name)
    assert first.name in {want.device for want in made.wishes(1.0)}
    assert isinstance(deliver(made, third), Delivered)


def test_a_device_that_goes_offline_frees_its_place_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = collector(tmp_path)
    first, _, third = queue_of(tmp_path, made, 3)
    with caplog.at_level("INFO"):
        made.offline(first.name)
    assert f"device={first.name} is offline: its upload gives up its place" in caplog.text
    assert third.name in {want.device for want in made.wishes(0.1)}


def test_a_lively_device_shares_its_credit_with_no_silent_one(tmp_path: Path) -> None:
    made = collector(tmp_path)
    lively, dead = queue_of(tmp_path, made, 2)
    made.take(lively.name, lively.chunk(0), SPEC, 0.0)
    made.offline(dead.name)
    assert [bits_of(want) for want in made.wishes(0.0, lively.name)] == [TRANSFER.credit_chunks]
