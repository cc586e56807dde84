"""A machine without a package of an extra is told how to get it, in one sentence."""

import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from common.command import Commands
from common.errors import ConfigError
from common.extras import EXTRAS
from common.learning.seam import build
from common.plan import ModelChoice
from coordinator.cli import main


@pytest.mark.parametrize("name", ["simple_cnn", "mobilenet_v2"])
def test_model_of_a_framework_that_is_not_here_names_the_cure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorflow", "keras"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in ("framework", "keras_learner"):  # as if no test had loaded them
        monkeypatch.delitem(sys.modules, f"common.learning.{module}", raising=False)
    with pytest.raises(ConfigError, match=rf"models\.{name}: .*; install fedpi\[learning\]"):
        build(ModelChoice(name=name), {})


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ModuleNotFoundError("No module named 'imagehash'", name="imagehash"), 78, "install fedpi[tools]"),
        (ModuleNotFoundError("No module named 'sklearn.metrics'", name="sklearn.metrics"), 78, "fedpi[learning] or"),
        (PermissionError(13, "Permission denied", "/srv/images"), 70, "/srv/images: Permission denied"),
        (FileNotFoundError(2, "No such file", "a", None, "b"), 70, "a and b: No such file"),
        (TimeoutError(), 70, "TimeoutError"),
    ],
)
def test_what_the_machine_lacks_or_refuses_is_one_sentence_at_every_command(
    error: Exception, code: int, sentence: str
) -> None:
    @click.group(cls=Commands)
    def program() -> None:
        pass

    @program.command()
    def work() -> None:
        raise error

    result = CliRunner().invoke(program, ["work"])
    assert (result.exit_code, result.stderr.count("\n")) == (code, 1)
    assert sentence in result.stderr


def test_a_module_of_nobody_is_a_bug() -> None:
    @click.group(cls=Commands)
    def program() -> None:
        pass

    @program.command()
    def work() -> None:
        raise ModuleNotFoundError("No module named 'coordinator.absent'", name="coordinator.absent")

    assert isinstance(CliRunner().invoke(program, ["work"]).exception, ModuleNotFoundError)


def test_splitting_names_its_extra_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.extras.find_spec", lambda module: None if module == "imagehash" else object())
    result = CliRunner().invoke(main, ["split", str(tmp_path), "--out", str(tmp_path / "out")])
    assert (result.exit_code, result.stderr) == (78, "main: splitting needs imagehash: install fedpi[tools]\n")


def test_the_extras_that_are_advised_exist() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(EXTRAS) <= set(project["project"]["optional-dependencies"])
