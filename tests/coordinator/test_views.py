"""What the journal says of rounds that were really played."""

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from common.errors import UsageError
from coordinator import views, wording
from coordinator.round_state import Round
from coordinator.store import DeviceRow, Store

Play = Callable[..., Round]


def printed(show: Callable[[Console], None]) -> str:
    out = StringIO()
    show(Console(file=out, width=200))
    return out.getvalue()


def online(device: str, doing: str = "waiting for a round") -> DeviceRow:
    return DeviceRow(device=device, state="online", doing=doing, release="r1-abcd0123", seen=1.0)


def test_committed_round_counts_its_devices_and_weighs_their_metrics(journal: Store, play: Play) -> None:
    play(1, reported={"rpi1": {"loss": 0.3}, "rpi2": {"loss": 0.6}})
    row = views.one_round(journal, 1).round
    assert (row.phase, row.reason) == ("committed", "")
    assert row.invited == row.reported == ("rpi1", "rpi2")
    assert row.metrics["loss"] == pytest.approx(0.4)  # 60 examples against 30
    text = printed(lambda console: console.print(views.rounds_table([row])))
    assert "2 of 2" in text
    assert "loss 0.4" in text


def test_void_round_tells_why_and_what_became_of_each_device(journal: Store, play: Play) -> None:
    play(1, reported={"rpi1": {}}, failed={"rpi2": "out of memory"}, silent=["rpi3"])
    view = views.one_round(journal, 1)
    assert view.round.phase == "abandoned"
    assert view.round.reason == "1 of 3 invited devices reported; 2 are needed"
    assert [(entry.device, entry.standing, entry.reason) for entry in view.ledger] == [
        ("rpi1", "reported", ""),
        ("rpi2", "failed", "out of memory"),
        ("rpi3", "missing", "sent no update before the round closed"),
    ]


def test_round_that_never_began_invited_nobody_and_blames_nobody(journal: Store, play: Play) -> None:
    play(1, silent=["rpi1"], goal=3)
    journal.see_devices([online("rpi1")])
    view = views.one_round(journal, 1)
    assert (view.round.phase, view.round.invited) == ("abandoned", ())
    assert [entry.standing for entry in view.ledger] == ["joined"]
    assert [(device.invited, device.reported) for device in views.devices(journal)] == [(0, 0)]


def test_device_counts_its_invitations_and_its_updates(journal: Store, play: Play) -> None:
    play(1, reported={"rpi1": {}, "rpi2": {}})
    play(2, reported={"rpi1": {}}, failed={"rpi2": "no images"})
    journal.see_devices([online("rpi1"), online("rpi2"), online("rpi9")])
    assert [(v.device, v.reported, v.invited) for v in views.devices(journal)] == [
        ("rpi1", 2, 2),
        ("rpi2", 1, 2),
        ("rpi9", 0, 0),
    ]


def test_round_that_is_not_there_is_an_error_that_names_the_last(journal: Store, play: Play) -> None:
    play(1, reported={"rpi1": {}, "rpi2": {}})
    with pytest.raises(UsageError, match="there is no round 7; the last one is 1"):
        views.one_round(journal, 7)


def test_status_shows_the_open_round_device_by_device(journal: Store, play: Play) -> None:
    play(1, reported={"rpi1": {}, "rpi2": {}})
    play(2, reported={"rpi1": {}}, silent=["rpi2"], is_over=False)
    journal.see_devices([online("rpi1"), online("rpi2", "training, round 2")])
    journal.ask_for(5)
    view = views.status(journal, "brain", is_served=True)
    assert view.last_round is not None
    assert view.open_round is not None
    assert (view.last_round.round, view.open_round.round.round) == (1, 2)
    text = printed(lambda console: views.show_status(view, console))
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "coordinator running" in lines
    assert "rpi1 reported waiting for a round" in lines
    assert "rpi2 accepted training, round 2" in lines


def test_status_before_the_first_round_has_nothing_to_show(journal: Store) -> None:
    view = views.status(journal, "brain", is_served=False)
    assert (view.model, view.last_round, view.open_round, view.run, view.release) == (None,) * 5
    text = printed(lambda console: views.show_status(view, console))
    assert "not running; start it with: fedpi-coordinator serve" in text


def test_reason_of_a_device_cannot_steer_the_terminal(journal: Store, play: Play) -> None:
    play(1, reported={"rpi1": {}}, failed={"rpi2": "\x1b[2Jgone\nrpi1 failed"})
    text = printed(lambda console: views.show_round(views.one_round(journal, 1), console))
    assert "\x1b" not in text
    assert " [2Jgone rpi1 failed" in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0.0 s"), (4.23, "4.2 s"), (60, "1 min 00 s"), (754.6, "12 min 35 s"), (7260, "2 h 01 min")],
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert wording.duration(seconds) == words


def test_headline_has_room_for_what_says_most() -> None:
    metrics = {"accuracy": 0.75, "brier": 0.2, "global_auc": 0.951234, "loss": 0.5}
    assert wording.headline(metrics) == "global_auc 0.9512, accuracy 0.75"
    assert wording.headline({"brier": 0.2, "mae": 1.0, "rmse": 2.0}) == "brier 0.2, mae 1"
    assert wording.headline({}) == ""
