"""How the programs start: beside other people's modules that have the names of fedpi's packages."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

import fedpi
from broker.cli import main as broker
from common.errors import ConfigError
from common.python import child_command
from coordinator.cli import main as coordinator
from device.cli import main as device
from device.config import read_config

ROLES = ("broker", "coordinator", "device")
OTHERS = "raise SystemExit('somebody else')\n"


def start(*words: str | Path, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment: Mapping[str, str] = {**os.environ, **variables}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def program(role: str) -> Path:
    return Path(sys.executable).parent / f"fedpi-{role}"


@pytest.mark.parametrize("name", fedpi.PACKAGES)
@pytest.mark.parametrize("form", ["{}.py", "{}/__init__.py"])
def test_a_package_that_comes_from_elsewhere_is_named_with_its_path_and_the_cure(
    tmp_path: Path, name: str, form: str
) -> None:
    theirs = tmp_path / form.format(name)
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text(OTHERS)
    done = start(program("device"), "--version", folder=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == ConfigError.exit_code == fedpi.WRONG_SETTINGS
    assert done.stderr.startswith(f"fedpi-device: the package '{name}' comes from {theirs} instead of ")
    assert "rename that file or folder" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("role", ROLES)
def test_files_of_those_names_in_the_working_folder_disturb_no_program(tmp_path: Path, role: str) -> None:
    for name in fedpi.PACKAGES:
        (tmp_path / f"{name}.py").write_text(OTHERS)
    done = start(program(role), "--version", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"fedpi-{role}, version ")


def test_a_child_does_not_look_into_the_working_folder(tmp_path: Path) -> None:
    (tmp_path / "common.py").write_text(OTHERS)
    assert start(sys.executable, "-m", "device", "--version", folder=tmp_path).returncode == ConfigError.exit_code
    assert start(*child_command("device", "--version"), folder=tmp_path).returncode == 0


@pytest.mark.parametrize("role", ROLES)
def test_the_module_starts_every_program(tmp_path: Path, role: str) -> None:
    done = start(sys.executable, "-m", "fedpi", role, "--version", folder=tmp_path)
    assert done.stdout.startswith(f"fedpi-{role}, version ")
    assert start(sys.executable, "-m", role, "--version", folder=tmp_path).stdout == done.stdout


@pytest.mark.parametrize("words", [(), ("nobody",)])
def test_wrong_use_of_the_module_is_told(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = start(sys.executable, "-m", "fedpi", *words, folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "broker,coordinator,device" in done.stderr


@pytest.mark.parametrize(("role", "group"), [("broker", broker), ("coordinator", coordinator), ("device", device)])
def test_every_program_has_a_version_and_the_same_place_for_its_configuration(role: str, group: object) -> None:
    assert CliRunner().invoke(group, ["--version"]).exit_code == 0  # type: ignore[arg-type]  # all are groups
    subcommand = {"broker": "enrolled", "coordinator": "status", "device": "check"}[role]
    options = group.commands[subcommand].params  # type: ignore[attr-defined]
    (config,) = (option for option in options if "--config" in option.opts)
    assert f"/etc/fedpi/{role}.yaml" in f"{config.default} {config.help}"
    assert not config.required


# ---- folders of users' code -----------------------------------------------------------------


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    kept = list(sys.path)
    monkeypatch.setattr(sys, "path", kept)
    return kept


def test_folders_of_users_code_come_last_and_once(
    tmp_path: Path, path: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, home = list(path), tmp_path / "home"
    monkeypatch.setattr("common.python._added", [])
    (home / "models").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for value in ("~/models", f"[{tmp_path}, ~/models]"):
        (tmp_path / "device.yaml").write_text(f"federation: f\ndevice: d\nstate: s\npython_path: {value}\n")
        read_config(tmp_path / "device.yaml")
    assert path == [*before, str(home / "models"), str(tmp_path)]


def test_a_folder_that_is_not_there_is_told_to_who_needs_code_and_harms_nobody_else(tmp_path: Path) -> None:
    """A unit that serves does not see home folders; whoever types `status` may have another home."""
    settings = f"federation: f\ndevice: d\nstate: {tmp_path}\npython_path: {tmp_path}/none\n"
    (tmp_path / "device.yaml").write_text(f"{settings}data: {{loader: 'mine:load'}}\n")
    words = (program("device"), "infer", "image.png", "--config", "device.yaml")
    assert "no release is installed" in start(*words, folder=tmp_path).stderr
    done = start(program("device"), "check", "--config", "device.yaml", folder=tmp_path)
    assert f"python_path names {tmp_path}/none, which is no folder here" in done.stdout
    assert done.returncode == ConfigError.exit_code


MINE = """\
from common.learning.numpy_learner import numpy_learner


def mine(options):
    return numpy_learner(options)
"""


def test_users_code_is_found_beside_files_of_fedpis_names_in_the_process_that_resolves_and_in_its_children(
    tmp_path: Path,
) -> None:
    """In one folder: a model, a file common.py, the configurations; and there everything is typed."""
    (tmp_path / "my_models.py").write_text(MINE)
    for name in ("common.py", "device.py"):
        (tmp_path / name).write_text(OTHERS)
    shared = "federation: brain\nstate: state\nmodels: {mine: 'my_models:mine'}\npython_path: .\n"
    (tmp_path / "coordinator.yaml").write_text(f"{shared}model: {{name: mine}}\n")
    (tmp_path / "device.yaml").write_text(f"{shared}device: rpi1\n")
    done = start(*child_command("coordinator.initial", "coordinator.yaml"), folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "state/initial.tmp").stat().st_size > 0
    done = start(program("device"), "check", "--config", "device.yaml", folder=tmp_path)
    assert "your own: mine" in done.stdout
