"""The wheel: what is in it, and what an environment has into which it is installed."""

import json
import zipfile
from pathlib import Path

import pytest

import fedpi
from tests.wheels import DATA, ROOT, build, copy_sources, install, run

pytestmark = pytest.mark.process

SHARE = "fedpi-0.2.0.data/data/share/fedpi"


def sources(*folders: str) -> set[str]:
    found = (path for name in folders for path in (ROOT / name).rglob("*") if path.is_file())
    return {str(path.relative_to(ROOT)) for path in found if path.suffix != ".pyc"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    copy_sources(folder)
    return build(folder)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel."""
    return install(wheel, tmp_path_factory.mktemp("environment")).parents[1]


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
