"""A journal of years: what is shown is read and nothing else, and old rounds can be taken out."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from common.errors import DiskFullError
from common.messages import Ref
from coordinator import following, metrics, rows, schema, views
from coordinator.cli import main
from coordinator.config import CoordinatorConfig
from coordinator.outcome import Best
from coordinator.pruning import prune
from coordinator.round_state import Round
from coordinator.store import DeviceRow, Release, Store

Play = Callable[..., Round]
ROUNDS = 2000
DEVICES = tuple(f"rpi{number}" for number in range(1, 11))
READ_ROUNDS, READ_ENTRIES = 20, 10
"""Most that a command may decode: rounds, and what became of devices in one."""


def ref(number: int) -> Ref:
    return Ref(id=f"{number:064x}", head_bytes=100, size=4096, chunk_bytes=4096)


@pytest.fixture
def long(config: CoordinatorConfig, journal: Store, play: Play) -> Store:
    """A journal whose first round is played, and repeated under every other number."""
    play(1, reported={device: {"loss": 0.5, "global_auc": 0.9} for device in DEVICES})
    journal.see_devices([DeviceRow(device=d, state="online", doing="waiting", release="", seen=1.0) for d in DEVICES])
    run = journal.ask_for(ROUNDS)
    journal.end_run(run, "done")
    with sqlite3.connect(config.journal) as db:
        (first,) = db.execute("SELECT * FROM rounds").fetchall()
        ledger = db.execute("SELECT * FROM ledger").fetchall()
        numbers = range(2, ROUNDS + 1)
        db.executemany("INSERT INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?, ?)", ((n, *first[1:]) for n in numbers))
        entries = ((n, *entry[1:]) for n in numbers for entry in ledger)
        db.executemany("INSERT INTO ledger VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", entries)
    db.close()
    return journal


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Count the rows that become rows of ours."""
    counts: dict[str, int] = {}
    to_row, to_round_row = rows.to_row, rows.to_round_row

    def counted(kind: Any, *arguments: Any, **others: Any) -> Any:
        counts[kind.__name__] = counts.get(kind.__name__, 0) + 1
        return to_row(kind, *arguments, **others)

    def counted_round(row: sqlite3.Row, round_: Round) -> Any:
        counts["RoundRow"] = counts.get("RoundRow", 0) + 1
        return to_round_row(row, round_)

    monkeypatch.setattr("coordinator.store.to_row", counted)
    monkeypatch.setattr("coordinator.store.to_round_row", counted_round)
    yield counts
    assert counts.get("RoundRow", 0) <= READ_ROUNDS
    assert counts.get("LedgerRow", 0) <= READ_ENTRIES


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("command", [("status",), ("devices",), ("rounds",), ("rounds", "--round", 1000)])
def test_a_command_reads_what_it_shows(read: dict[str, int], config_path: Path, command: tuple[object, ...]) -> None:
    result = run(*command, "--config", config_path)
    assert result.exit_code == 0
    assert read


def test_sums_exports_and_a_run_that_begins_read_no_row_that_they_do_not_need(
    long: Store, read: dict[str, int], config: CoordinatorConfig
) -> None:
    assert [(view.invited, view.reported) for view in views.devices(long)] == [(ROUNDS, ROUNDS)] * 10
    assert len(list(metrics.samples(long))) > 10
    long.set_global_model(ref(ROUNDS))
    long.set_fact("best", msgspec.json.encode(Best("m", 0.1, 100, ref(1))).decode())
    assert long.last_committed() == ROUNDS
    assert long.last_committed(before=100) == 99
    moment = next(following.follow(long, config.folder, long.ask_for(1)))
    assert moment.closed == ()
    assert read


@pytest.mark.usefixtures("long")
def test_rounds_shows_the_last_twenty_and_says_that_there_are_more(config_path: Path) -> None:
    shown = run("rounds", "--config", config_path)
    assert [line.split()[0] for line in shown.stdout.splitlines()[1:]] == [str(n) for n in range(1981, 2001)]
    assert shown.stderr == "1980 earlier rounds not shown: --all shows all.\n"
    assert len(json.loads(run("rounds", "--config", config_path, "--json").stdout)) == 20
    everything = run("rounds", "--all", "--config", config_path, "--json")
    assert (len(json.loads(everything.stdout)), everything.stderr) == (ROUNDS, "")


def pages_of_a_round(store: Store, play: Play, number: int) -> int:
    """Count what a round writes to the log, one change of a device after the other."""
    store.renew_log()
    play(number, store, reported={device: {"loss": 0.5} for device in DEVICES})
    row = store._db.row("PRAGMA wal_checkpoint")  # noqa: SLF001 - a test looks inside
    assert row is not None
    return int(row["log"])


def test_a_round_writes_few_pages_to_a_journal_of_any_length(long: Store, tmp_path: Path, play: Play) -> None:
    new = Store(tmp_path / "new.sqlite", create=True)
    for store, number in ((new, 1), (long, ROUNDS + 1)):  # four changes of each device, a commit each
        assert pages_of_a_round(store, play, number) < 12 * len(DEVICES)
    new.close()


def test_devices_are_counted_by_an_index_and_those_under_way_in_the_open_round_alone(long: Store, play: Play) -> None:
    plan = [row["detail"] for row in long._db.rows(f"EXPLAIN QUERY PLAN {schema.STANDINGS}")]  # noqa: SLF001 - as above
    assert "SCAN ledger USING COVERING INDEX ledger_settled" in plan
    assert not {"SCAN ledger", "SCAN rounds"} & set(plan)
    play(ROUNDS + 1, reported={"rpi1": {}}, silent=["rpi2"], is_over=False)
    counts = long.standings()
    assert (counts["rpi1", "reported"], counts["rpi2", "reported"], counts["rpi2", "accepted"]) == (
        ROUNDS + 1,
        ROUNDS,
        1,
    )


# ---- prune ----------------------------------------------------------------------------------


def numbers(store: Store) -> list[int]:
    return [row.round for row in store.rounds()]


def test_pruning_keeps_the_newest_and_makes_the_journal_smaller(
    long: Store, config: CoordinatorConfig, config_path: Path
) -> None:
    result = run("prune", "--keep", 50, "--config", config_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Deleted 1950 rounds, 50 are left; the journal: ")
    assert numbers(long) == list(range(1951, 2001))
    assert {row.round for row in long.ledger()} == set(range(1951, 2001))
    assert config.journal.stat().st_size < 2_000_000
    assert (long.last_round(), len(long.devices())) == (ROUNDS, 10)
    again = json.loads(run("prune", "--keep", 50, "--config", config_path, "--json").stdout)
    assert (again["deleted"], again["left"], again["is_shrunk"]) == (0, 50, True)


def test_pruning_keeps_what_a_model_or_a_release_needs(journal: Store, play: Play) -> None:
    for number in range(1, 12):
        play(number, reported={"rpi1": {}, "rpi2": {}})
    for number in range(12, 21):
        play(number, silent=["rpi1", "rpi2"])
    run_ = journal.ask_for(20)
    journal.end_run(run_, "done")
    journal.set_fact("best", msgspec.json.encode(Best("m", 0.1, 6, ref(5))).decode())
    journal.add_release(Release(release="r3-ab", model=ref(3), round=3, labels=("no", "yes"), created=1.0))
    prune(journal, 2)
    assert numbers(journal) == [3, 5, 6, 11, 19, 20]
    assert (journal.last_committed(), journal.last_committed(before=6)) == (11, 5)
    assert journal.global_model() == ref(11)
    assert journal.newest_release() is not None


def test_pruning_keeps_an_open_round_and_the_count_of_its_run(journal: Store, play: Play) -> None:
    first, second = journal.ask_for(3), journal.ask_for(5)
    for number in range(1, 4):
        play(number, reported={"rpi1": {}, "rpi2": {}}, run=first)
    journal.end_run(first, "done")
    for number in range(4, 7):
        play(number, reported={"rpi1": {}, "rpi2": {}}, run=second)
    play(7, silent=["rpi1", "rpi2"], is_over=False, run=second)
    prune(journal, 1)
    assert numbers(journal) == [4, 5, 6, 7]
    active = journal.active_run()
    assert active is not None
    assert (active.run, active.begun) == (second, 4)
    assert journal.open_round() is not None


def test_a_running_coordinator_saves_rounds_between_two_prunings(
    long: Store, config: CoordinatorConfig, play: Play
) -> None:
    other = Store(config.journal)
    play(ROUNDS + 1, store=other, reported={"rpi1": {}, "rpi2": {}}, is_over=False)
    prune(long, 10)
    play(ROUNDS + 1, store=other, reported={"rpi1": {}, "rpi2": {}})
    assert numbers(other) == list(range(ROUNDS - 8, ROUNDS + 2))
    other.close()


def test_no_room_to_make_the_file_smaller_is_told(
    journal: Store, play: Play, monkeypatch: pytest.MonkeyPatch, config_path: Path
) -> None:

    def full(_store: Store) -> None:
        raise DiskFullError("no room")

    play(1, reported={"rpi1": {}, "rpi2": {}})
    monkeypatch.setattr(Store, "shrink", full)
    result = run("prune", "--keep", 1, "--config", config_path)
    assert (result.exit_code, "no room to make the file smaller" in result.stderr) == (0, True)
    assert journal.last_round() == 1
