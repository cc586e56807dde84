"""On which systems install.sh goes on: what the file os-release says, and what it leaves out."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "systemd/system-check.sh"


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder of programs like that of a 64-bit Debian with systemd."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("dpkg", "echo amd64"), ("systemctl", "")):
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return folder


def check(programs: Path, *texts: str | None) -> "subprocess.CompletedProcess[str]":
    """Run it where the files that say which system this is hold `texts`; None: it is not there."""
    files = [programs.parent / f"os-release-{number}" for number in range(len(texts))]
    for file, text in zip(files, texts, strict=True):
        if text is not None:
            file.write_text(text)
    bash = shutil.which("bash") or "bash"
    return subprocess.run(
        [bash, SCRIPT, *files], env={"PATH": str(programs)}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "texts",
    [
        ('ID=debian\nVERSION_ID="12"\n',),
        ('ID=debian\nVERSION_ID="13"\nNAME="Debian GNU/Linux"\n',),
        ('ID=debian\nPRETTY_NAME="Debian GNU/Linux forky/sid"\n',),
        ("ID=debian\nVERSION_ID=\n",),
        ("ID=debian\nVERSION_ID=trixie/sid\n",),
        ('ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n',),
        (None, 'ID=debian\nVERSION_ID="12"\n'),
        (None, None),
        ("",),
    ],
)
def test_a_debian_of_12_or_later_will_do_whatever_its_file_leaves_out(programs: Path, texts: tuple[str | None]) -> None:
    done = check(programs, *texts)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('ID=debian\nVERSION_ID="11"\n', "Debian 11 is too old; fedpi needs 12 or later"),
        ("ID=raspbian\nID_LIKE=debian\nVERSION_ID=10.3\n", "Debian 10.3 is too old; fedpi needs 12 or later"),
        ("ID=fedora\nVERSION_ID=40\n", "this is no Debian and no Raspberry Pi OS, but 'fedora'"),
    ],
)
def test_another_system_is_named(programs: Path, text: str, told: str) -> None:
    done = check(programs, text)
    assert (done.returncode, done.stderr) == (78, f"install.sh: {told}\n")


def test_a_32_bit_system_is_named(programs: Path) -> None:
    (programs / "dpkg").write_text("#!/bin/sh\necho armhf\n")
    done = check(programs, "ID=debian\nVERSION_ID=12\n")
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert "this system is armhf" in done.stderr


def test_a_system_without_systemd_is_told(programs: Path) -> None:
    (programs / "systemctl").unlink()
    done = check(programs, "ID=debian\nVERSION_ID=12\n")
    assert (done.returncode, done.stderr.count("\n")) == (78, 1)
    assert "systemd is not installed" in done.stderr


# ---- install.sh itself, as far as its help: from anywhere, in any environment ------------------


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_installer_starts_through_a_link_with_no_environment_from_a_path_with_spaces(
    tmp_path: Path, shell: str
) -> None:
    clone = tmp_path / "a clone (of mine)"
    shutil.copytree(ROOT / "systemd", clone / "systemd")
    for name in ("install.sh", "pyproject.toml"):
        shutil.copy2(ROOT / name, clone / name)
    link = tmp_path / "elsewhere" / "install fedpi"
    link.parent.mkdir()
    link.symlink_to(clone / "install.sh")
    program = shutil.which(shell) or shell
    done = subprocess.run(
        [program, link, "--help"], cwd=link.parent, env={"CDPATH": "/"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: sudo ./install.sh")


def test_the_installer_without_its_clone_says_so() -> None:
    """As where somebody pipes it from the network into a shell. Never as root: it might begin to install."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
    text = (ROOT / "install.sh").read_text()
    done = subprocess.run(
        [*nobody, "bash", "-s", "device"], cwd="/", input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is no clone of fedpi" in done.stderr
