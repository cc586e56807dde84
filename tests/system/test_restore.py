"""A coordinator whose state comes back from a backup goes on from there, with devices that know of later rounds."""

import shutil
from pathlib import Path

import pytest

from tests.system.conftest import LiveFederation

pytestmark = pytest.mark.system


def test_a_coordinator_that_is_restored_from_a_backup_goes_on_where_the_backup_was_made(tmp_path: Path) -> None:
    with LiveFederation(tmp_path / "live", {"rpi1": 7, "rpi2": 9}) as live:
        live.begin("mosquitto")
        live.run(2)
        live.processes.pop("coordinator").stop()
        state, backup = live.folder / "coordinator", tmp_path / "backup"
        shutil.copytree(state, backup)
        live.start_coordinator()
        later = live.run(2)
        assert [row.round for row in later] == [3, 4]

        live.processes.pop("coordinator").stop()
        live.store.close()
        shutil.rmtree(state)
        shutil.copytree(backup, state)
        live.start_coordinator()
        live.store = live.open_store(60.0)
        before = live.model()
        (again,) = live.run()
        assert (again.round, again.phase, again.reported) == (3, "committed", ("rpi1", "rpi2"))
        assert live.model() == live.expect(before, 3)
