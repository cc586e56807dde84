"""A device in JavaScript, written from `docs/protocol.md` alone, takes part in signed rounds beside a Python one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker import enrolment
from coordinator.rehearsal.federation import Process
from tests.system.conftest import WAIT_S, step_of
from tests.system.secured import SecuredFederation

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "tests" / "javascript"
INSTALLED = ROOT / "runs" / "javascript"
ADD = 0.75
"""What the JavaScript device adds to every value."""
EXAMPLES = {"rpi1": 7, "rpi2": 5}
ROUNDS = 3
OWN_MODELS = {"models": {"mine": "common.learning.numpy_learner:numpy_learner"}}


PATH = os.pathsep.join((os.environ["PATH"], str(Path(sys.executable).parent)))
"""Node.js may be a package of the virtual environment."""


def find(program: str) -> str | None:
    return shutil.which(program, path=PATH)


class MixedFederation(SecuredFederation):
    """`rpi1` is fedpi's device, `rpi2` the one in JavaScript."""

    def __init__(self, folder: Path, program: Path, model: str = "numpy") -> None:
        super().__init__(folder, {"rpi1": EXAMPLES["rpi1"]})
        self.program = program
        self.model_name = model
        self.bundle = enrolment.enroll(self.config_of_broker, "rpi2", self.folder)

    def start_coordinator(self, options: Mapping[str, Any] | None = None) -> Process:
        """Start the coordinator of a model that both parties of Python know by that name."""
        if options is not None:
            options = {**options, "model": {**options["model"], "name": self.model_name}, **OWN_MODELS}
        return super().start_coordinator(options)

    def start_javascript(self) -> None:
        """Start `rpi2` with what `fedpi-broker enroll` wrote for it."""
        options = {"bundle": self.bundle, "state": self.folder / "rpi2", "add": ADD, "examples": EXAMPLES["rpi2"]}
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        become = ["-c", "import os, sys; os.execv(sys.argv[1], sys.argv[1:])", find("node") or "", str(self.program)]
        self.processes["rpi2"] = Process("rpi2", [*become, *words], self.folder / "logs" / "rpi2.log")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The JavaScript device, beside the packages that it requires."""
    if find("node") is None or (npm := find("npm")) is None:
        pytest.skip("Node.js or npm is missing: `make javascript` installs them")
    if not (INSTALLED / "node_modules" / "mqtt").exists():
        INSTALLED.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCES / "package.json", INSTALLED)
        line = [npm, "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]
        subprocess.run(line, cwd=INSTALLED, check=True, env={**os.environ, "PATH": PATH})
    folder = tmp_path_factory.mktemp("javascript")
    for source in SOURCES.glob("*.mjs"):
        shutil.copy(source, folder)
    (folder / "node_modules").symlink_to(INSTALLED / "node_modules")
    return folder / "device.mjs"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, program: Path) -> Iterator[MixedFederation]:
    with MixedFederation(tmp_path_factory.mktemp("mixed"), program) as running:
        running.begin("mosquitto", round={"goal": 2, "minimum": 2})
        running.start_javascript()
        running.wait_for_devices(running.store, 2, WAIT_S)
        yield running


def expected(base: bytes, number: int) -> bytes:
    """Return the mean of both updates, weighted by their examples, on top of `base`."""
    before = np.frombuffer(base, "<f4")
    total = np.zeros(before.size)
    for device, step in (("rpi1", step_of("rpi1", number)), ("rpi2", np.float32(ADD))):
        total += ((before + step) - before).astype(np.float64) * EXAMPLES[device]
    return (before.astype(np.float64) + total / sum(EXAMPLES.values())).astype("<f4").tobytes()


def test_the_worked_bytes_of_the_document_are_made_in_javascript_as_well(program: Path) -> None:
    line = [find("node") or "", str(program.with_name("worked.mjs")), str(ROOT / "docs" / "protocol.md")]
    done = subprocess.run(line, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_device_in_javascript_takes_part_in_three_signed_rounds(live: MixedFederation) -> None:
    for _ in range(ROUNDS):
        base = live.model()
        (row,) = live.run()
        assert row.reported == ("rpi1", "rpi2"), live.log("rpi2")
        assert live.model() == expected(base, row.round)
        live.until_logged("rpi2", f"round {row.round}: counted")
    assert "refused" not in live.log("rpi2")
    assert "forged" not in live.log("coordinator")


def test_it_leaves_in_order_and_finds_its_way_back_to_a_coordinator_and_a_broker_that_are_new(
    live: MixedFederation,
) -> None:
    live.processes.pop("rpi2").stop()
    live.until(lambda: live.states()["rpi2"] == "offline", "rpi2 stayed online")
    live.start_javascript()
    live.until(lambda: live.states()["rpi2"] == "online", "rpi2 did not come back")
    for name in ("coordinator", "broker"):
        live.processes.pop(name).stop()
    live.start_broker("mosquitto")
    live.start_coordinator()
    live.until(lambda: live.log("rpi2").count("connected") == 3, "rpi2 did not connect again")
    base = live.model()
    (row,) = live.run()
    assert row.reported == ("rpi1", "rpi2")
    assert live.model() == expected(base, row.round)
    assert "forged" not in live.log("coordinator")


def test_a_device_without_the_ability_that_a_plan_needs_is_told_and_the_round_goes_on(
    tmp_path: Path, program: Path
) -> None:
    with MixedFederation(tmp_path, program, model="mine") as live:
        live.begin("mosquitto", devices={"rpi1": OWN_MODELS}, round={"goal": 2, "minimum": 1, "selection_s": 3})
        live.start_javascript()
        live.wait_for_devices(live.store, 2, WAIT_S)
        (row,) = live.run()
        assert row.reported == ("rpi1",)
        ledger = live.ledger(row.round)
        assert (ledger["rpi1"].standing, ledger["rpi2"].standing) == ("reported", "unable")
        assert "lacks model:mine" in ledger["rpi2"].reason
        live.until_logged("rpi2", f"round {row.round}: refused, {ledger['rpi2'].reason}")
