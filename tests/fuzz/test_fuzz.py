"""The short form of `make fuzz`: one input in a hundred of every kind."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.errors import DataError
from tests.fuzz.target import Target, attack
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_read_or_refused_in_bounded_time_and_memory(name: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--targets", name, "--short"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_fault_that_is_planted_is_found(tmp_path: Path) -> None:
    def begin(_folder: Path):  # type: ignore[no-untyped-def]
        def attempt(draw: random.Random) -> None:
            chance = draw.random()
            if chance < 0.4:
                raise DataError("a refusal")
            if chance < 0.5:
                raise KeyError("a bug")

        return attempt

    found = attack(Target("planted", 100, begin), 0, 100, tmp_path)
    assert 20 < found.refused < 60
    assert found.failures
    assert all("KeyError" in failure.what for failure in found.failures)
    assert not found.is_good


def test_an_input_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.target.MOST_SECONDS", 0.2)
    found = attack(Target("endless", 1, lambda _folder: lambda _draw: time.sleep(60)), 0, 1, tmp_path)
    assert "took more than" in found.failures[0].what
