"""What onlookers are told: how far every device is, how the last rounds went, in packets of any size."""

from collections.abc import Callable

import msgspec
import pytest

from common.chronicle import MAX_MEMBERS, MemberProgress, PastRound, PastRounds, RoundMembers
from coordinator.chronicler import FIGURES, LAST_ROUNDS, Stopwatch, clock, fitting, members, past
from coordinator.round_state import Round
from coordinator.store import Store

Play = Callable[..., Round]


def progress(told: RoundMembers) -> dict[str, MemberProgress]:
    return {member.device: member for member in told.members}


def test_every_device_is_told_with_its_bytes_examples_and_seconds(play: Play) -> None:
    round_ = play(1, reported={"rpi1": {}}, failed={"rpi3": "no memory"}, silent=["rpi2"], is_over=False)
    watch = clock(Stopwatch(), round_, 3.0)  # the cohort was invited at 1.0
    told = progress(members(round_, {"rpi2": 17}, watch, 6.0))
    assert told["rpi1"] == MemberProgress(
        device="rpi1", standing="reported", examples=60, update_bytes=4096, received_bytes=4096, seconds=2.0
    )
    assert (told["rpi2"].standing, told["rpi2"].received_bytes, told["rpi2"].seconds) == ("accepted", 17, 5.0)
    assert (told["rpi3"].standing, told["rpi3"].seconds) == ("failed", 2.0)
    assert next(iter(told)) == "rpi2", "who is waited for comes first"


def test_the_seconds_of_a_device_stop_once_it_is_settled(play: Play) -> None:
    round_ = play(1, reported={"rpi1": {}}, silent=["rpi2"], is_over=False)
    watch = clock(clock(Stopwatch(), round_, 3.0), round_, 9.0)
    assert progress(members(round_, {}, watch, 9.0))["rpi1"].seconds == 2.0


def test_the_watch_starts_anew_with_the_next_round(play: Play) -> None:
    watch = clock(Stopwatch(), play(1, reported={"rpi1": {}}, silent=["rpi2"], is_over=False), 3.0)
    following = play(2, silent=["rpi1"], goal=2, is_over=False)
    watch = clock(watch, following, 50.0)
    assert watch == Stopwatch(2)
    assert progress(members(following, {}, watch, 60.0))["rpi1"].seconds == 0.0


def test_past_rounds_are_the_last_ones_that_are_over(journal: Store, play: Play) -> None:
    metrics = {f"figure_{number}": number / 3 for number in range(FIGURES + 2)}
    for number in range(1, LAST_ROUNDS + 3):
        play(number, reported={"rpi1": {"loss": 0.123456, **metrics}, "rpi2": {"loss": 0.123456, **metrics}})
    play(LAST_ROUNDS + 3, reported={"rpi1": {}}, failed={"rpi2": "no memory"})
    play(LAST_ROUNDS + 4, silent=["rpi1", "rpi2"], is_over=False)
    told = past(journal.rounds()).rounds
    assert [row.round for row in told] == list(range(4, LAST_ROUNDS + 4))
    assert (told[0].phase, told[0].invited, told[0].reported) == ("committed", 2, 2)
    assert told[0].metrics["loss"] == 0.1235
    assert len(told[0].metrics) == FIGURES
    assert (told[-1].phase, told[-1].reason) == ("abandoned", "1 of 2 invited devices reported; 2 are needed")


def fleet(count: int) -> RoundMembers:
    waiting = [MemberProgress(device=f"rpi{number}", standing="invited") for number in range(count)]
    return RoundMembers(round=1, members=tuple(waiting))


@pytest.mark.parametrize("most", [None, 100_000, 4096, 500])
def test_a_document_shrinks_to_what_the_broker_carries_and_counts_whom_it_hides(most: int | None) -> None:
    payload = fitting(fleet(100), most)
    told = msgspec.json.decode(payload, type=RoundMembers)
    assert most is None or len(payload) <= most
    assert len(told.members) + told.hidden == 100
    assert told.members == fleet(100).members[: len(told.members)]


def test_of_past_rounds_the_newest_stay() -> None:
    rows = [
        PastRound(round=number, phase="committed", invited=2, reported=2, closed=1.0, seconds=1.0)
        for number in range(1, 21)
    ]
    told = msgspec.json.decode(fitting(PastRounds(rounds=tuple(rows)), 1000), type=PastRounds)
    assert told.rounds
    assert told.rounds == tuple(rows[-len(told.rounds) :])


def test_what_never_fits_is_sent_empty_rather_than_never() -> None:
    assert msgspec.json.decode(fitting(fleet(3), 10), type=RoundMembers) == RoundMembers(round=1, hidden=3)
    assert msgspec.json.decode(fitting(PastRounds(), 1), type=PastRounds) == PastRounds()


def test_a_fleet_beyond_all_bounds_is_cut(play: Play) -> None:
    devices = [f"rpi{number}" for number in range(MAX_MEMBERS + 5)]
    told = members(_crowd(play, devices), {}, Stopwatch(), 0.0)
    assert (len(told.members), told.hidden) == (MAX_MEMBERS, 5)


def _crowd(play: Play, devices: list[str]) -> Round:
    round_ = play(1, silent=["rpi0"], goal=2, is_over=False)
    joined = tuple(msgspec.structs.replace(round_.members[0], device=device) for device in devices)
    return msgspec.structs.replace(round_, members=joined)
