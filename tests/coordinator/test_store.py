"""The coordinator's journal."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from common.errors import ConfigError, DataError
from common.health import Health
from common.messages import Offer, Ref
from common.plan import ModelChoice, RoundPlan
from coordinator import schema
from coordinator.events import (
    Accepted,
    Aggregated,
    Cancelled,
    CheckedIn,
    Declined,
    Delivered,
    Event,
    Left,
    Offered,
    Rejected,
)
from coordinator.round import step
from coordinator.round_state import Phase, Round
from coordinator.store import DeviceRow, Release, Store
from tests.rounds import GENERATION, digest, open_round, plan_of

BASE = Ref(id="0" * 64, head_bytes=100, size=8, chunk_bytes=4096)
RESULT = msgspec.structs.replace(BASE, id="9" * 64)
UPDATE = msgspec.structs.replace(BASE, id="1" * 64)


def plan(number: int = 1) -> RoundPlan:
    return plan_of(number, BASE, model=ModelChoice(name="numpy", options={"deep": [1, {"x": None}]}))


def offered(device: str) -> Offered:
    offer = Offer(
        device=device,
        round=1,
        generation=GENERATION,
        plan=digest(plan()),
        update=UPDATE,
        num_examples=3,
        metrics={"loss": 0.1, "é": 1e30},
    )
    return Offered(offer=offer)


HISTORY: tuple[Event, ...] = (
    CheckedIn(device="a"),
    CheckedIn(device="gone"),
    Left(device="gone"),
    CheckedIn(device="b"),
    CheckedIn(device="c"),
    Accepted(device="a"),
    offered("a"),
    offered("b"),
    Delivered(device="a", update=UPDATE.id),
    Rejected(device="b", update=UPDATE.id, reason="tensor 'kernel' holds a number that is not finite"),
    Declined(device="c", reason="too hot: später\n"),
)


def new(number: int = 1, minimum: int = 1) -> Round:
    return open_round(plan(number), now=12.5, goal=3, minimum=minimum, selection_s=100.0, deadline_s=1000.0)


def timeless(round_: Round) -> Round:
    """What comes back: all but when an update last advanced, by a clock that ends, and which came before the last."""
    members = tuple(
        msgspec.structs.replace(m, advanced_at=0.0, earlier=frozenset({m.update.id} if m.update else ()))
        for m in round_.members
    )
    return msgspec.structs.replace(round_, members=members)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite"


@pytest.fixture
def store(path: Path) -> Store:
    return Store(path, create=True)


def test_after_every_checkpoint_a_new_process_finds_the_open_round(path: Path, store: Store) -> None:
    round_, run = new(), store.ask_for(1)
    for place, event in enumerate(HISTORY):
        round_, _ = step(round_, event, 20.0 + place)
        store.save(round_, run)
        store.save_traffic(round_.number, (place, 2 * place))
        found = Store(path).open_round()
        if place == len(HISTORY) - 1:
            assert round_.phase is Phase.AGGREGATING
        assert found == (timeless(round_), run, (place, 2 * place))
    round_, _ = step(round_, Aggregated(result=RESULT), 50.0)
    store.save(round_, run)
    again = Store(path)
    assert again.open_round() is None
    assert again.global_model() == RESULT
    assert again.last_round() == 1


def test_the_ledger_says_what_became_of_every_device(path: Path, store: Store) -> None:
    round_ = new()
    for event in HISTORY:
        round_, _ = step(round_, event, 20.0)
        store.save(round_, 1)
    rows = Store(path).ledger(1)
    assert [(row.device, row.standing, row.num_examples) for row in rows] == [
        ("a", "reported", 3),
        ("b", "refused", 3),
        ("c", "declined", 0),
    ]
    assert rows[0].update_id == UPDATE.id
    assert rows[0].metrics == {"loss": 0.1, "é": 1e30}
    assert "'kernel'" in rows[1].reason
    assert store.ledger() == rows
    assert store.ledger(2) == []


def test_a_device_that_left_is_not_in_the_ledger(path: Path, store: Store) -> None:
    round_ = new()
    for event in HISTORY[:3]:
        round_, _ = step(round_, event, 20.0)
        store.save(round_, 1)
    assert [row.device for row in Store(path).ledger()] == ["a"]


def test_a_restarted_process_goes_on_with_the_same_ledger(path: Path, store: Store) -> None:
    round_ = new()
    for event in HISTORY:
        round_, _ = step(round_, event, 20.0)
        again = Store(path)
        again.save(round_, 1)
        again.save(round_, 1)
        again.close()
    assert [row.standing for row in store.ledger()] == ["reported", "refused", "declined"]


def test_rounds_are_listed_oldest_first(store: Store) -> None:
    first, _ = step(new(1), Cancelled(reason="stopped"), 1.0)
    second, _ = step(new(2), CheckedIn(device="a"), 1.0)
    store.save(first, 1, (10, 20))
    store.save(second, 1)
    rows = store.rounds()
    assert [(row.round, row.phase, row.reason) for row in rows] == [(1, "abandoned", "stopped"), (2, "selecting", "")]
    assert (rows[0].bytes_down, rows[0].bytes_up) == (10, 20)
    assert rows[0].closed is not None
    assert 0 <= rows[0].seconds < 60
    assert rows[1].closed is None
    assert store.rounds(since=1) == rows[1:]


def test_an_abandoned_round_leaves_the_global_model(store: Store) -> None:
    store.set_global_model(BASE)
    store.save(step(new(), Cancelled(reason="stopped"), 1.0)[0], 1)
    assert store.global_model() == BASE


def test_an_empty_journal(store: Store) -> None:
    assert store.global_model() is None
    assert store.open_round() is None
    assert store.last_round() == 0
    assert not [*store.rounds(), *store.ledger(), *store.devices()]
    assert store.active_run() is None
    assert store.newest_release() is None


# ---- runs -----------------------------------------------------------------------------------


def test_runs_queue_up_in_their_order(store: Store) -> None:
    first, second = store.ask_for(2), store.ask_for(1)
    active = store.active_run()
    assert active is not None
    assert (active.run, active.rounds, active.begun, active.state) == (first, 2, 0, "queued")
    assert store.go_on(first)
    for number in (1, 2):
        store.save(new(number), first)
    running = store.run(first)
    assert running is not None
    assert (running.begun, running.state) == (2, "running")
    store.end_run(first, "done")
    following = store.active_run()
    assert following is not None
    assert (following.run, following.begun) == (second, 0)


def test_a_crash_before_the_first_checkpoint_costs_the_run_no_round(path: Path, store: Store) -> None:
    run = store.ask_for(1)
    assert store.go_on(run)
    again = Store(path).active_run()
    assert again is not None
    assert again.begun == 0


@pytest.mark.parametrize(("now", "state"), [(False, "stopping"), (True, "aborting")])
def test_stopping_ends_what_waits_and_asks_what_runs(store: Store, now: bool, state: str) -> None:
    running, queued = store.ask_for(2), store.ask_for(1)
    store.go_on(running)
    assert store.stop_runs(now=now) == 2
    states = [found.state for number in (running, queued) if (found := store.run(number))]
    assert states == [state, "stopped"]


def test_a_run_that_was_stopped_in_the_meantime_does_not_begin(path: Path, store: Store) -> None:
    run = store.ask_for(2)
    Store(path).stop_runs(now=False)
    assert not store.go_on(run)
    assert store.active_run() is None
    other = store.ask_for(2)
    assert store.go_on(other)
    Store(path).stop_runs(now=True)
    assert not store.go_on(other)


def test_nothing_to_stop(store: Store) -> None:
    assert store.stop_runs(now=True) == 0
    store.end_run(store.ask_for(1), "done")
    assert store.stop_runs(now=True) == 0


# ---- releases and devices -------------------------------------------------------------------


def test_the_newest_release_is_the_one_to_serve(store: Store) -> None:
    for name in ("r1", "r2"):
        release = Release(release=name, model=RESULT, round=3, labels=("no", "yes"), created=100.0)
        store.add_release(release)
        assert store.newest_release() == release


def test_devices_are_kept_as_last_heard_of(store: Store) -> None:
    old = DeviceRow(device="pi", state="online", doing="", release="", seen=1.0)
    health = Health(temperature_c=55.8, flags=("throttled",), clock_synchronised=False)
    new_ = DeviceRow(device="pi", state="offline", doing="", release="r1", seen=2.0, refused=3, health=health)
    store.see_devices([old])
    store.see_devices([new_])
    assert store.devices() == [new_]


# ---- files ----------------------------------------------------------------------------------


def test_a_journal_that_is_not_there_is_not_made_by_looking(path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        Store(path)
    assert not path.exists()


@pytest.mark.parametrize("version", [schema.VERSION + 1, 99])
def test_a_journal_of_another_version_is_refused(path: Path, store: Store, version: int) -> None:
    store.close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    with pytest.raises(ConfigError, match=f"version {version}"):
        Store(path)


def test_a_journal_of_the_version_before_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    db = sqlite3.connect(path)
    db.executescript(
        "CREATE TABLE devices (device TEXT PRIMARY KEY, state TEXT, doing TEXT, release TEXT, seen REAL);"
        "CREATE TABLE ledger (round INTEGER, device TEXT, standing TEXT, reason TEXT, num_examples INTEGER,"
        " update_id TEXT, metrics TEXT);"
        "INSERT INTO devices VALUES ('pi', 'online', 'training', 'r1', 1.0); PRAGMA user_version = 1"
    )
    db.close()
    for _ in range(2):
        store = Store(path)
        row = DeviceRow(device="pi", state="online", doing="training", release="r1", seen=1.0)
        assert store.devices() == [row]
        store.close()


@pytest.mark.parametrize("content", [b"this is no journal at all" * 100, b"SQLite format 3\x00" + bytes(2000)])
def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        Store(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"journal\.sqlite"):
        Store(tmp_path / "file" / "journal.sqlite", create=True)


READER = """
import sys
from pathlib import Path
from coordinator.store import Store
store, seen = Store(Path(sys.argv[1])), 0
print("ready", flush=True)
while seen < 50:
    rows = store.rounds()
    assert [row.round for row in rows] == list(range(1, len(rows) + 1)), rows
    assert all(len(store.ledger(row.round)) == 2 for row in rows)
    seen = len(rows)
print(seen, store.ask_for(3))
"""


@pytest.mark.system
def test_another_process_reads_while_this_one_writes(path: Path, store: Store) -> None:
    root = str(Path(__file__).parents[2])
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(path)], stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": root}
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    for number in range(1, 51):
        round_ = new(number)
        for device in ("a", "b"):
            round_, _ = step(round_, CheckedIn(device=device), 1.0)
        store.save(round_, 1)
    output, _ = reader.communicate(timeout=30)
    assert output.split() == ["50", "1"]
    assert reader.returncode == 0
    run = store.active_run()
    assert run is not None
    assert run.rounds == 3
