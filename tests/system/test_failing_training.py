"""Devices whose training fails: the round goes on without them, or is void and says why."""

from collections.abc import Iterator

import pytest

from tests.system.conftest import LiveFederation

pytestmark = pytest.mark.system

EXAMPLES = {"rpi1": 7, "rpi2": 30, "rpi3": 11}
STUBBORN = """
import os, signal

from common.errors import WorkError
from common.learning.numpy_learner import NumpyLearner, numpy_learner


def train_without_disk(*_):
    raise WorkError("the disk with the images is gone")


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def forgetful(options):
    learner = numpy_learner(options)
    learner.train = train_without_disk
    return learner


def mortal(options):
    learner = numpy_learner(options)
    learner.train = die
    return learner
"""
REASONS = {
    "rpi2": "the disk with the images is gone",
    "rpi3": "the training process ended by itself (killed, as the kernel does when memory runs out)",
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFederation]:
    """Two of three devices name a model of their own in their configuration, and it fails there."""
    folder = tmp_path_factory.mktemp("failing")
    (folder / "stubborn.py").write_text(STUBBORN)
    with LiveFederation(folder, EXAMPLES) as federation:
        own = {"rpi2": "stubborn:forgetful", "rpi3": "stubborn:mortal"}
        devices = {device: {"models": {"numpy": entry}, "python_path": [str(folder)]} for device, entry in own.items()}
        yield federation.begin("mosquitto", devices=devices, round={"goal": 3, "minimum": 1})


def test_round_commits_without_them_and_the_ledger_says_why(live: LiveFederation) -> None:
    base = live.model()
    (row,) = live.run()
    assert (row.phase, row.reported) == ("committed", ("rpi1",))
    assert live.model() == live.expect(base, row.round, "rpi1")
    ledger = live.ledger(row.round)
    assert {device: (entry.standing, entry.reason) for device, entry in ledger.items()} == {
        "rpi1": ("reported", ""),
        **{device: ("failed", reason) for device, reason in REASONS.items()},
    }


def test_below_the_minimum_the_round_is_void_and_start_says_why(live: LiveFederation) -> None:
    live.processes["coordinator"].stop()
    live.start_coordinator({**live.options, "round": {"goal": 3, "minimum": 2}})
    base = live.model()
    done = live.command("start")
    assert done.returncode == 70
    (row,) = live.store.rounds(live.store.last_round() - 1)
    assert row.phase == "abandoned"
    assert row.reason == "1 of 3 invited devices reported; 2 are needed"
    for part in (row.reason, *REASONS.values()):
        assert part in done.stderr
    assert live.model() == base
