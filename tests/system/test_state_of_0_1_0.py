"""State folders that fedpi 0.1.0 left: a coordinator's with an open round, a device's that had delivered in it."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from coordinator import records
from coordinator.cli import main
from coordinator.store import Store
from tests.system.conftest import LiveFederation

STATES = Path(__file__).parents[1] / "states" / "0.1.0"
COMMITTED, VOID, OPEN = (1, 2, 4), 3, 5
MODEL = {"tensors": 2, "parameters": 300}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for party in ("coordinator", "rpi1"):
        shutil.copytree(STATES / party, tmp_path / party)
    return tmp_path


def test_rounds_models_and_releases_are_listed(folder: Path) -> None:
    config = folder / "coordinator.yaml"
    plain = {"federation": "rehearsal", "state": str(folder / "coordinator"), "model": {"name": "numpy"}}
    config.write_text(yaml.safe_dump(plain))
    listed = CliRunner().invoke(main, ["rounds", "--json", "--config", str(config)])
    assert listed.exit_code == 0, listed.output
    rows = {row["round"]: row for row in json.loads(listed.stdout)}
    assert [number for number, row in rows.items() if row["phase"] == "committed"] == list(COMMITTED)
    assert (rows[VOID]["phase"], rows[VOID]["reason"]) == ("abandoned", "1 devices checked in within 3 s; 2 are needed")
    assert all(rows[number]["reported"] == ["rpi1", "rpi2"] for number in COMMITTED)
    store = Store(folder / "coordinator" / "journal.sqlite")
    model, release = store.global_model(), store.newest_release()
    assert model is not None
    assert model.id == rows[4]["model"]
    assert release is not None
    assert release.release == "r2-0123abcd"


@pytest.mark.system
def test_the_open_round_is_void_and_the_next_one_is_committed(folder: Path) -> None:
    with LiveFederation(folder, {"rpi1": 7, "rpi2": 30}) as live:
        live.begin("mosquitto", MODEL, strategy={"name": "fedadam"})
        live.until(lambda: live.phase(OPEN) == "abandoned", "the open round was not closed")
        (void,) = [row for row in live.store.rounds() if row.round == OPEN]
        assert void.reason == records.EARLIER_OPEN
        live.until(lambda: live.store.active_run() is None, "the run that was under way did not end")
        (row,) = live.run()
        assert (row.phase, row.reported) == ("committed", ("rpi1", "rpi2"))
        assert {row.device: row.state for row in live.store.devices()} == {"rpi1": "online", "rpi2": "online"}
