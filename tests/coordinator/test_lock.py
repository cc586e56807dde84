"""One coordinator a folder, and a look that disturbs nobody."""

import fcntl
import threading
from pathlib import Path

import pytest

from common.errors import ConfigError
from coordinator.lock import is_served, serving


def test_folder_is_served_while_it_is_held_and_no_longer(tmp_path: Path) -> None:
    with serving(tmp_path / "state"):
        assert is_served(tmp_path / "state")
    assert not is_served(tmp_path / "state")


def test_folder_that_never_was_is_not_served_and_not_made(tmp_path: Path) -> None:
    assert not is_served(tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_second_coordinator_is_told_of_the_first(tmp_path: Path) -> None:
    with serving(tmp_path), pytest.raises(ConfigError, match="another coordinator runs on"), serving(tmp_path):
        pass
    assert not is_served(tmp_path)


def test_look_at_the_wrong_moment_keeps_nobody_from_serving(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        threading.Timer(0.15, fcntl.flock, (look, fcntl.LOCK_UN)).start()
        with serving(tmp_path):
            assert is_served(tmp_path)


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write to .*file"), serving(tmp_path / "file"):
        pass
