"""A run, followed from its first moment to its judgement."""

import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from common.errors import WorkError
from coordinator import following
from coordinator.config import CoordinatorConfig
from coordinator.following import Moment, follow, judge, news, show
from coordinator.lock import serving
from coordinator.round_state import Round
from coordinator.store import Store

Play = Callable[..., Round]
BOTH = {"rpi1": {"loss": 0.3}, "rpi2": {"loss": 0.6}}


@pytest.fixture
def folder(config: CoordinatorConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a state folder that is served."""
    monkeypatch.setattr(following, "POLL_S", 0.0)
    with serving(config.folder):
        yield config.folder


def test_run_is_told_change_by_change(journal: Store, play: Play, folder: Path) -> None:
    run = journal.ask_for(2)
    moments = follow(journal, folder, run)
    first = next(moments)
    assert news(None, first) == ["Run 1 is queued."]
    assert news(first, next(moments)) == []

    journal.go_on(run)
    play(1, silent=["rpi1", "rpi2"], is_over=False)
    second = next(moments)
    assert news(first, second) == ["Round 1 is training: 0 of 2 devices have reported."]

    play(1, reported=BOTH)
    third = next(moments)
    [line] = news(second, third)
    assert line.startswith("Round 1 is committed: 2 of 2 devices reported in ")

    play(2, reported={"rpi1": {}}, failed={"rpi2": "out of memory"})
    journal.end_run(run, "done")
    last = next(moments)
    [line] = news(third, last)
    assert line.startswith("Round 2 is void after ")
    assert line.endswith(": 1 of 2 invited devices reported; 2 are needed.")
    assert [row.round for row in last.closed] == [1, 2]
    assert list(moments) == []


def test_rounds_of_other_runs_are_not_this_ones(journal: Store, play: Play, folder: Path) -> None:
    first, second = journal.ask_for(1), journal.ask_for(1)
    moments = follow(journal, folder, second)
    play(1, reported=BOTH, run=first)
    play(2, silent=["rpi1", "rpi2"], run=first, is_over=False)
    moment = next(moments)
    assert (moment.closed, moment.open) == ((), None)


def test_run_without_a_coordinator_says_what_it_waits_for(
    journal: Store, play: Play, config: CoordinatorConfig
) -> None:
    run = journal.ask_for(2)
    play(1, silent=["rpi1", "rpi2"], is_over=False)
    moment = next(follow(journal, config.folder, run))
    assert news(None, moment) == ["Run 1 is queued until a coordinator is served."]
    with serving(config.folder):
        served = next(follow(journal, config.folder, run))
    assert news(moment, served) == ["Round 1 is training: 0 of 2 devices have reported."]


@pytest.mark.parametrize("is_terminal", [False, True])
def test_show_prints_every_round_that_ended(journal: Store, play: Play, folder: Path, is_terminal: bool) -> None:
    run = journal.ask_for(2)
    play(1, reported=BOTH)
    play(2, silent=["rpi1", "rpi2"], is_over=False)
    moments = [next(follow(journal, folder, run))]
    play(2, reported=BOTH)
    journal.end_run(run, "done")
    moments.append(next(follow(journal, folder, run)))
    out = StringIO()
    end = show(unhurried(moments), Console(file=out, force_terminal=is_terminal, width=100, highlight=False))
    assert end == moments[-1]
    text = out.getvalue()
    assert text.count("Round 1 is committed") == text.count("Round 2 is committed") == 1
    assert "Round 2 is training: 0 of 2 devices have reported." in text
    assert ("━" in text) == is_terminal


def unhurried(moments: list[Moment]) -> Iterator[Moment]:
    """Leave a terminal the time to be drawn."""
    for moment in moments:
        yield moment
        time.sleep(0.15)


def end_of(store: Store, folder: Path, run: int) -> Moment:
    *_, end = follow(store, folder, run)
    return end


def test_run_of_committed_rounds_is_judged_good(journal: Store, play: Play, folder: Path) -> None:
    run = journal.ask_for(1)
    play(1, reported=BOTH)
    journal.end_run(run, "done")
    judge(end_of(journal, folder, run), journal.ledger())


def test_void_rounds_are_named_with_the_devices_to_blame(journal: Store, play: Play, folder: Path) -> None:
    run = journal.ask_for(2)
    play(1, reported=BOTH)
    play(2, reported={"rpi1": {}}, failed={"rpi2": "out of memory"}, silent=["rpi3", "rpi4"])
    journal.end_run(run, "done")
    with pytest.raises(WorkError) as raised:
        judge(end_of(journal, folder, run), journal.ledger())
    assert raised.value.exit_code == 70
    assert str(raised.value) == (
        "1 of 2 rounds void: round 2: 1 of 4 invited devices reported; 2 are needed (rpi2 failed: out of memory; "
        "rpi3, rpi4 missing: sent no update before the round closed)"
    )


def test_run_that_was_stopped_early_is_not_good(journal: Store, play: Play, folder: Path) -> None:
    run = journal.ask_for(5)
    play(1, reported=BOTH)
    journal.end_run(run, "stopped")
    with pytest.raises(WorkError, match="run 1 was stopped after 1 of 5 rounds"):
        judge(end_of(journal, folder, run), journal.ledger())
