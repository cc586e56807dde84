"""The wheel: what is in it, and what an environment has into which it is installed."""

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import fedpi

ROOT = Path(__file__).resolve().parents[1]
DATA = ("config", "systemd")
SHARE = "fedpi-0.2.0.data/data/share/fedpi"


def run(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def sources(*folders: str) -> set[str]:
    found = (path for name in folders for path in (ROOT / name).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in found if path.suffix != ".pyc"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: building leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in (*fedpi.PACKAGES, *DATA):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("fedpi.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, folder)
    words = ("--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check", "--wheel-dir", folder)
    done = run(sys.executable, "-m", "pip", "wheel", *words, folder, folder=folder)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; what fedpi needs besides is that of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    assert run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder).returncode == 0
    ours = next(folder.glob("lib/python3*/site-packages"))
    (ours / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")
    words = ("install", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", wheel)
    done = run(sys.executable, "-m", "pip", "--python", folder / "bin/python", *words, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_wheel_carries_the_packages_the_examples_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    examples = {name.removeprefix(f"{SHARE}/") for name in names if name.startswith(SHARE)}
    assert examples == sources(*DATA)
    assert {name for name in names if not name.startswith(SHARE)} == sources(*fedpi.PACKAGES) | {"fedpi.py"}


@pytest.mark.parametrize(
    ("role", "written"),
    [
        ("coordinator", ("coordinator.yaml", "monitoring/alerts.yaml", "monitoring/grafana.json")),
        ("device", ("device.yaml", "systemd/fedpi-device.service", "systemd/fedpi-inference.service")),
    ],
)
def test_init_writes_the_examples_out_and_never_over_a_file(
    environment: Path, tmp_path: Path, role: str, written: tuple[str, ...]
) -> None:
    mine, init = tmp_path / f"{role}.yaml", (environment / f"bin/fedpi-{role}", "init", "--out", tmp_path)
    mine.write_text("federation: mine\n")
    done = run(*init, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    told = dict(line.split() for line in done.stdout.splitlines()[1:])
    assert told == {str(path): "kept" if path == mine else "written" for path in tmp_path.rglob("*") if path.is_file()}
    assert {str(tmp_path / name) for name in written} <= told.keys()
    assert mine.read_text() == "federation: mine\n"
    for path in map(Path, told.keys() - {str(mine)}):
        name = path.relative_to(tmp_path)
        ours = ROOT / name if name.parts[0] == "systemd" else ROOT / "config" / name
        assert path.read_bytes() == ours.read_bytes()
    again = json.loads(run(*init, "--json", folder=tmp_path).stdout)
    assert {row["state"] for row in again} == {"kept"}


def test_a_folder_that_cannot_be_written_is_one_sentence(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = run(environment / "bin/fedpi-device", "init", "--out", tmp_path / "taken", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (70, "", 1)


@pytest.mark.parametrize("name", fedpi.PACKAGES)
def test_another_projects_package_installed_over_fedpis_is_named(environment: Path, tmp_path: Path, name: str) -> None:
    """As `pip install common` does, without a word."""
    module = next(environment.glob(f"lib/python3*/site-packages/{name}/__init__.py"))
    ours = module.read_bytes()
    module.write_text('"""Somebody else\'s."""\n')
    try:
        done = run(environment / "bin/fedpi-device", "check", folder=tmp_path)
    finally:
        module.write_bytes(ours)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (78, "", 1)
    assert f"the package '{name}' in {module.parent} is another project's" in done.stderr
