"""A coordinator whose disk is full: what the journal holds stays, and it goes on when there is room."""

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.blobs import BlobStore
from common.errors import DiskFullError, WorkError
from common.messages import Ref
from common.plan import ModelChoice
from common.stopping import Stop
from coordinator import patience
from coordinator.config import CoordinatorConfig
from coordinator.round_state import Phase
from coordinator.store import Store
from tests.rounds import open_round, plan_of

MODEL = Ref(id="0" * 64, head_bytes=100, size=50 * 2**20, chunk_bytes=4096)
ROUND = open_round(plan_of(1, MODEL), goal=1, minimum=1, selection_s=1.0, deadline_s=1.0)
Usage = namedtuple("Usage", "free")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "journal.sqlite", create=True)
    store.set_global_model(MODEL)
    return store


def limit(store: Store, pages: int) -> None:
    """Let the database grow to so many pages: SQLite says what it says of a full disk."""
    store._db.execute(f"PRAGMA max_page_count = {pages}")  # noqa: SLF001 - a fault, made here


def test_full_disk_leaves_the_journal_as_it_was(store: Store) -> None:
    store.save(ROUND, 1)
    limit(store, 1)
    large = msgspec.structs.replace(ROUND, phase=Phase.ABANDONED, reason="x" * 100_000)
    with pytest.raises(DiskFullError, match="its disk is full"):
        store.save(large, 1)
    limit(store, 100_000)
    found = store.open_round()
    assert found is not None
    assert found[0].phase is Phase.SELECTING
    store.save(large, 1)
    assert store.open_round() is None


def test_waits_until_there_is_room_and_goes_on(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = patience.SPARE_BYTES + 2 * MODEL.size
    free, served, stop = [0, needed - 1, needed], list[tuple[int, bool]](), Stop()

    class Full:
        """A Service that finds the disk full, and the next one that does not."""

        def __init__(self, *_: Any, takes_over: bool) -> None:
            served.append((len(free), takes_over))

        def serve(self, stop: Stop) -> None:
            if len(served) == 1:
                raise DiskFullError("no room")
            stop.set()

    monkeypatch.setattr(patience, "Service", Full)
    monkeypatch.setattr(patience, "LOOK_S", 0.001)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free.pop(0)))
    config = CoordinatorConfig(federation="lab", state=str(tmp_path), model=ModelChoice(name="numpy"))
    patience.serve(config, store, BlobStore(tmp_path / "models"), stop, takes_over=True)
    assert served == [(3, True), (0, False)]  # who came meanwhile is not ended for it


def test_a_disk_that_fails_is_not_waited_for(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        """A Service whose disk fails."""

        def __init__(self, *_: Any, **__: Any) -> None: ...

        def serve(self, _stop: Stop) -> None:
            raise WorkError("input/output error")

    monkeypatch.setattr(patience, "Service", Broken)
    config = CoordinatorConfig(federation="lab", state=str(tmp_path), model=ModelChoice(name="numpy"))
    with pytest.raises(WorkError, match="input/output"):
        patience.serve(config, store, BlobStore(tmp_path / "models"), Stop())
