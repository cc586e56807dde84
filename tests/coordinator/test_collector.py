"""Updates on their way in: several devices, one credit, restarts."""

import hashlib
import os
from pathlib import Path

import msgspec
import pytest

from common.chunks import layout_of
from common.errors import PeerError
from common.messages import Chunk, Want
from common.weights import TensorSpec
from coordinator.events import Advanced, Delivered, Rejected
from tests.coordinator.senders import CHUNK, SPEC, TRANSFER, bits_of, collector, deliver, device


def test_a_good_update_is_delivered(tmp_path: Path) -> None:
    made, pi = collector(tmp_path), device(tmp_path)
    update = pi.offer.update.id
    assert deliver(made, pi) == Delivered(device="pi", update=update)
    assert made.path("pi", update).read_bytes() == pi.data
    assert not made.is_active
    assert made.has_intact("pi", update)


def test_bytes_that_advance_are_told_once_a_second(tmp_path: Path) -> None:
    made, pi = collector(tmp_path), device(tmp_path)
    made.begin(pi.offer, SPEC, 10.0)
    made.take("pi", pi.chunk(0), SPEC, 10.0)
    told = [made.take("pi", pi.chunk(index), SPEC, 10.0 + 0.3 * index) for index in range(1, 9)]
    assert told.count(Advanced(device="pi")) == 2


def test_tensors_that_do_not_fit_are_refused_by_the_head_alone(tmp_path: Path) -> None:
    made, pi = collector(tmp_path), device(tmp_path, spec=(TensorSpec("other", (10_247,), "float32"),))
    made.begin(pi.offer, SPEC, 0.0)
    verdict = made.take("pi", pi.chunk(0), SPEC, 0.0)
    assert isinstance(verdict, Rejected)
    assert verdict.reason.startswith("it has 1 tensors")
    assert not list((tmp_path / "updates").glob("pi/*"))


def test_bytes_that_repeat_are_no_progress(tmp_path: Path) -> None:
    made, pi = collector(tmp_path), device(tmp_path)
    deliver(made, pi, limit=4)
    again = [made.take("pi", pi.chunk(index), SPEC, 100.0 + 2.0 * index) for index in range(4)]
    assert again == [None] * 4
    assert made.take("pi", pi.chunk(4), SPEC, 120.0) == Advanced(device="pi")


def test_going_back_to_an_earlier_update_brings_no_progress_before_it_is_further(tmp_path: Path) -> None:
    made, pi, again = collector(tmp_path), device(tmp_path), device(tmp_path, seed=2)
    deliver(made, pi, limit=4)
    deliver(made, again, limit=2)
    made.begin(pi.offer, SPEC, 100.0)
    told = [made.take("pi", pi.chunk(index), SPEC, 100.0 + 2.0 * index) for index in range(5)]
    assert told == [None] * 4 + [Advanced(device="pi")]


def test_a_head_that_hashes_and_does_not_parse_is_rejected(tmp_path: Path) -> None:
    made, pi = collector(tmp_path), device(tmp_path)
    packed = bytes(pi.offer.update.head_bytes)
    update = msgspec.structs.replace(pi.offer.update, id=hashlib.sha256(packed).hexdigest())
    offer = msgspec.structs.replace(pi.offer, update=update)
    made.begin(offer, SPEC, 0.0)
    verdict = made.take("pi", Chunk(blob=update.id, index=0, data=packed), SPEC, 0.0)
    assert isinstance(verdict, Rejected)
    assert verdict.reason.startswith("not a valid head")
    assert not made.is_active
    assert not made.wishes(100.0)


def test_an_offer_that_contradicts_the_update_that_is_here_is_rejected(tmp_path: Path) -> None:
    made, pi = collector(tmp_path), device(tmp_path)
    deliver(made, pi)
    lie = msgspec.structs.replace(pi.offer, update=msgspec.structs.replace(pi.offer.update, chunk_bytes=2 * CHUNK))
    verdict = made.begin(lie, SPEC, 1.0)
    assert isinstance(verdict, Rejected)
    assert "contradicts its announcement" in verdict.reason


def test_a_number_that_is_not_finite_is_refused_with_its_tensor(tmp_path: Path) -> None:
    made, pi = collector(tmp_path), device(tmp_path, bad=float("nan"))
    verdict = deliver(made, pi)
    assert isinstance(verdict, Rejected)
    assert "'bias'" in verdict.reason
    assert not made.is_active
    assert not list((tmp_path / "updates").glob("pi/*"))


def test_a_false_chunk_is_refused_and_the_update_completed(tmp_path: Path) -> None:
    made, pi = collector(tmp_path), device(tmp_path)
    made.begin(pi.offer, SPEC, 0.0)
    made.take("pi", pi.chunk(0), SPEC, 0.0)
    false = msgspec.structs.replace(pi.chunk(1), data=bytes(CHUNK))
    with pytest.raises(PeerError, match="digest"):
        made.take("pi", false, SPEC, 0.0)
    assert isinstance(deliver(made, pi), Delivered)
    assert made.path("pi", pi.offer.update.id).read_bytes() == pi.data


def test_chunks_that_nobody_asked_for_are_refused(tmp_path: Path) -> None:
    made, pi, other = collector(tmp_path), device(tmp_path), device(tmp_path, "other", seed=2)
    with pytest.raises(PeerError, match="nobody asked for"):
        made.take("pi", pi.chunk(0), SPEC, 0.0)
    made.begin(pi.offer, SPEC, 0.0)
    with pytest.raises(PeerError, match="nobody asked for"):
        made.take("pi", other.chunk(0), SPEC, 0.0)
    with pytest.raises(PeerError, match="nobody asked for"):
        made.take("other", pi.chunk(0), SPEC, 0.0)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_all_windows_together_stay_within_the_credit(tmp_path: Path, count: int) -> None:
    made = collector(tmp_path)
    senders = {f"pi-{n}": device(tmp_path, f"pi-{n}", seed=n) for n in range(count)}
    for sender in senders.values():
        made.begin(sender.offer, SPEC, 0.0)
    delivered, now = set[str](), 0.0
    while delivered != set(senders):
        now += 60.0  # silence: whatever was asked for is lost
        on_the_way = [chunk for want in made.wishes(now) for chunk in senders[want.device].answer(want)]
        assert 0 < len(on_the_way) <= TRANSFER.credit_chunks
        for chunk in on_the_way:
            name = next(n for n, sender in senders.items() if sender.offer.update.id == chunk.blob)
            if isinstance(made.take(name, chunk, SPEC, now), Delivered):
                delivered.add(name)


def test_a_newcomer_begins_with_what_the_windows_on_their_way_leave(tmp_path: Path) -> None:
    made = collector(tmp_path)
    first, second = device(tmp_path, seed=1), device(tmp_path, "late", seed=2)
    deliver(made, first, limit=1)  # its head; its window, the whole credit, is on its way now
    made.begin(second.offer, SPEC, 2.0)
    made.take("late", second.chunk(0), SPEC, 2.0)
    assert [bits_of(want) for want in made.wishes(2.0, "late")] == [1]
    made.wishes(60.0)  # what did not come is asked for again
    assert [bits_of(want) for want in made.wishes(60.0)] == [3]  # a silent device holds no credit


def test_an_offer_that_is_said_again_does_not_begin_anew(tmp_path: Path) -> None:
    made, pi = collector(tmp_path), device(tmp_path)
    deliver(made, pi, limit=4)
    before = made.wishes(1000.0, "pi")
    assert made.begin(pi.offer, SPEC, 1000.0) is None
    made.take("pi", pi.chunk(0), SPEC, 1000.0)
    assert 0 not in [chunk.index for want in before for chunk in pi.answer(want)]


def test_no_time_is_left_out_without_looking_at_any_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, pi = collector(tmp_path), device(tmp_path)
    made.begin(pi.offer, SPEC, 0.0)
    monkeypatch.delattr("common.inflow.Inflow.excuse")
    made.excuse(0.0)


def test_while_nobody_listens_nobody_is_silent(tmp_path: Path) -> None:
    made, pi = collector(tmp_path), device(tmp_path)
    deliver(made, pi, limit=4)
    made.excuse(60.0)
    assert made.wishes(61.0) == []
    assert made.wishes(80.0) != []


def test_a_device_that_is_back_is_asked_at_once(tmp_path: Path) -> None:
    made, pi = collector(tmp_path), device(tmp_path)
    deliver(made, pi, limit=4)
    for now in (10.0, 20.0, 40.0, 80.0):
        made.wishes(now)
    assert not made.wishes(81.0, "pi"), "its silence has made the coordinator patient"
    made.begin(pi.offer, SPEC, 81.0)
    assert made.wishes(81.0, "pi")
    made.begin(pi.offer, SPEC, 81.0)
    assert not made.wishes(81.0, "pi"), "what it was asked for is on its way"


def test_another_offer_replaces_the_first_and_frees_its_disk(tmp_path: Path) -> None:
    made, pi, again = collector(tmp_path), device(tmp_path), device(tmp_path, seed=2)
    deliver(made, pi, limit=4)
    assert isinstance(deliver(made, again), Delivered)
    left = {path.stem for path in (tmp_path / "updates").glob("pi/*")}
    assert left == {again.offer.update.id}


@pytest.mark.parametrize("came", range(13))
def test_a_restart_after_any_chunk_asks_only_for_the_others(tmp_path: Path, came: int) -> None:
    pi = device(tmp_path)
    total = layout_of(pi.offer.update).total
    deliver(collector(tmp_path), pi, limit=came)
    made = collector(tmp_path)
    verdict = made.begin(pi.offer, SPEC, 0.0)
    asked, now = set[int](), 0.0
    while not isinstance(verdict, Delivered):
        now += 1.0
        for chunk in [chunk for want in made.wishes(now) for chunk in pi.answer(want)]:
            asked.add(chunk.index)
            verdict = made.take("pi", chunk, SPEC, now)  # type: ignore[assignment]  # Advanced and None go on
    assert made.path("pi", pi.offer.update.id).read_bytes() == pi.data
    assert len(asked) <= total - came
    assert verdict == Delivered(device="pi", update=pi.offer.update.id)


def test_a_restart_between_the_last_chunk_and_the_verdict(tmp_path: Path) -> None:
    pi = device(tmp_path)
    last = layout_of(pi.offer.update).total - 1
    deliver(collector(tmp_path), pi, limit=last)
    part = next((tmp_path / "updates").glob("pi/*.part"))
    part.write_bytes(pi.data)  # the last chunk reached the disk, and nobody was told
    made = collector(tmp_path)
    assert made.begin(pi.offer, SPEC, 0.0) == Delivered(device="pi", update=pi.offer.update.id)
    assert not made.is_active


def test_an_update_that_is_here_already_travels_no_second_time(tmp_path: Path) -> None:
    pi = device(tmp_path)
    deliver(collector(tmp_path), pi)
    made = collector(tmp_path)
    assert made.begin(pi.offer, SPEC, 0.0) == Delivered(device="pi", update=pi.offer.update.id)
    assert made.wishes(0.0) == []


@pytest.mark.parametrize("is_asked", [True, False])
def test_an_update_that_a_power_cut_tore_travels_again(tmp_path: Path, is_asked: bool) -> None:
    pi = device(tmp_path)
    deliver(collector(tmp_path), pi)
    made = collector(tmp_path)
    made.path("pi", pi.offer.update.id).write_bytes(b"x" + pi.data[1:])
    if is_asked:
        assert not made.has_intact("pi", pi.offer.update.id)
    assert isinstance(deliver(made, pi), Delivered)
    assert made.path("pi", pi.offer.update.id).read_bytes() == pi.data


def test_a_round_that_is_over_leaves_only_what_the_cohort_writes_over(tmp_path: Path) -> None:
    made, pi, other = collector(tmp_path), device(tmp_path), device(tmp_path, "other", seed=2)
    deliver(made, pi)
    deliver(made, other, limit=4)
    made.end_round({"pi"})
    assert not made.is_active
    assert made.wishes(1000.0) == []
    assert [path.name for path in (tmp_path / "updates").iterdir()] == ["pi"]


def test_the_next_update_is_written_over_the_last_one(tmp_path: Path) -> None:
    made = collector(tmp_path)
    first, second = device(tmp_path), device(tmp_path, seed=2)
    deliver(made, first)
    written = made.path("pi", first.offer.update.id)
    number = written.stat().st_ino
    made.end_round({"pi"})
    assert isinstance(deliver(made, second), Delivered)
    path = made.path("pi", second.offer.update.id)
    assert path.stat().st_ino == number
    assert path.read_bytes() == second.data
    assert not written.exists()


def test_files_are_closed_again(tmp_path: Path) -> None:
    senders = [device(tmp_path, f"pi-{n}", seed=n) for n in range(4)]
    for sender in senders:
        sender.answer(Want(device=sender.name, blob=sender.offer.update.id, chunks=b"\xff\xff"))
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count is all
    made = collector(tmp_path)
    for sender in senders:
        deliver(made, sender, limit=3)
        deliver(made, sender)
        made.has_intact(sender.name, sender.offer.update.id)
        made.begin(sender.offer, SPEC, 0.0)
    deliver(made, senders[0], limit=3)
    made.end_round(())
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - a count is all
