"""fedpi as a wheel, and installed from one into an environment of its own."""

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import fedpi

ROOT = Path(__file__).resolve().parents[1]
DATA = ("config", "systemd")


def run(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in `folder` to its end."""
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


def copy_sources(folder: Path) -> None:
    """Copy what a wheel is built from: building leaves files behind."""
    for name in (*fedpi.PACKAGES, *DATA):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("fedpi.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, folder)


def build(folder: Path) -> Path:
    """Build the wheel of the sources in `folder`."""
    words = ("--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check", "--wheel-dir", folder)
    done = run(sys.executable, "-m", "pip", "wheel", *words, folder, folder=folder)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel into a new environment at `folder`; what fedpi needs besides is that of the tests.

    Returns the environment's Python, for which this version of fedpi is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    assert run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder).returncode == 0
    ours = next(folder.glob("lib/python3*/site-packages"))
    (ours / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n")
    words = ("install", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", wheel)
    done = run(sys.executable, "-m", "pip", "--python", folder / "bin/python", *words, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "bin" / "python"
