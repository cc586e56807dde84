"""This version and others, a later one and every kept one, in federations of real processes, in both directions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.compat.mixed import MixedFederation
from tests.compat.versions import ABILITY, OPTION, kept_wheels, later_version, later_wheel
from tests.system.conftest import SEED, expect, initial_model, step_of
from tests.wheels import install, run

pytestmark = pytest.mark.system

EXAMPLES = {"here": 7, "there": 30}
"""A device of this version and one of the other."""
OFFSET = 0.5
ROUNDS = 2

Install = Callable[[str], Path]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Install a version; returns its Python."""
    pythons: dict[str, Path] = {}

    def make(version: str) -> Path:
        if version not in pythons:
            wheel = kept_wheels().get(version) or later_wheel(tmp_path_factory.mktemp("sources"))
            python = install(wheel, tmp_path_factory.mktemp("environment"))
            said = run(python, "-I", "-m", "device", "--version", folder=python.parent).stdout
            assert said.split()[-1] == version
            pythons[version] = python
        return pythons[version]

    return make


@pytest.mark.parametrize("version", [later_version(), *kept_wheels()])
@pytest.mark.parametrize("others", [("there",), ("there", "coordinator")], ids=["a device", "the coordinator"])
def test_this_version_and_another_one_commit_rounds_together(
    tmp_path: Path, installed: Install, version: str, others: tuple[str, ...]
) -> None:
    with MixedFederation(tmp_path, EXAMPLES, dict.fromkeys(others, installed(version))) as live:
        live.open_up()
        model = initial_model()
        for number in range(1, ROUNDS + 1):
            row = live.commit()
            assert row["reported"] == sorted(EXAMPLES)
            model = expect(model, number, EXAMPLES)
            assert live.body(row["model"]).read_bytes() == model
        assert [device["refused"] for device in live.shown("devices")] == [0, 0]
        assert live.complaints() == []


def test_a_later_option_that_is_used_is_trained_by_who_has_its_ability_and_by_no_other(
    tmp_path: Path, installed: Install
) -> None:
    pythons = dict.fromkeys(("there", "coordinator"), installed(later_version()))
    with MixedFederation(tmp_path, EXAMPLES, pythons) as live:
        training = {"seed": SEED, "epochs": 1, "evaluate": False, OPTION: OFFSET}
        live.open_up({"minimum": 1, "selection_s": 3}, training=training)
        row = live.commit()
        standings = live.standings(1)
        assert standings["there"] == ("reported", "")
        assert standings["here"][0] == "unable"
        assert f"lacks {ABILITY}" in standings["here"][1]
        live.until_logged("here", f"lacks {ABILITY}")
        before = np.frombuffer(initial_model(), "<f4")
        trained = before + (step_of("there", 1) + np.float32(OFFSET))
        assert live.body(row["model"]).read_bytes() == (before + (trained - before)).astype("<f4").tobytes()
        assert live.complaints() == []
