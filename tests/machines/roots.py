"""What machines are made of: a minimal Debian, the wheels to install, a copy of this clone."""

import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = "systemd-sysv,dbus,python3-venv,mosquitto,mosquitto-clients,iproute2,ca-certificates,procps,sudo"
SUITES = {"bookworm": ("3.11", 36), "trixie": ("3.13", 41)}
"""Python and the C library (2.N) of each release of Debian."""
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class MachineError(Exception):
    """A command failed on a machine, or something did not happen in time."""


@dataclass(frozen=True)
class System:
    """A release of Debian on an architecture, and where its packages are."""

    suite: str
    architecture: str
    mirror: str


def command(*words: str | Path, check: bool = True, timeout_s: float = 900.0) -> subprocess.CompletedProcess[str]:
    """Run a command here; raises MachineError with what it said."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=timeout_s, check=False)
    if check and done.returncode != 0:
        raise MachineError(f"{' '.join(map(str, words))}: exit code {done.returncode}: {done.stdout}{done.stderr}")
    return done


def make_root(folder: Path, system: System) -> Path:
    """Make a minimal Debian below `folder`, or find the one that was made before."""
    root = folder / f"{system.suite}-{system.architecture}"
    if not all((root / "usr/bin" / name).exists() for name in ("mosquitto_sub", "sudo")):
        shutil.rmtree(root, ignore_errors=True)
        options = [f"--arch={system.architecture}", "--variant=minbase", f"--include={PACKAGES}"]
        command("debootstrap", *options, system.suite, root, system.mirror, timeout_s=3600)
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        (root / "etc/machine-id").write_text("", encoding="ascii")  # each machine makes its own
        (root / "etc/systemd/system/multi-user.target.wants/mosquitto.service").unlink(missing_ok=True)
    return root


def fetch_wheels(folder: Path, system: System) -> Path:
    """Fetch what `system` installs below `folder`, with this machine's own pip settings; returns where it is."""
    place = folder / f"wheels-{system.suite}-{system.architecture}"
    place.mkdir(parents=True, exist_ok=True)
    python, libc = SUITES[system.suite]
    machine = MACHINES[system.architecture]
    tags = [f"manylinux2014_{machine}", *(f"manylinux_2_{minor}_{machine}" for minor in range(17, libc + 1))]
    options = ["--quiet", "--only-binary", ":all:", "--dest", str(place), "--python-version", python]
    platforms = [option for tag in tags for option in ("--platform", tag)]
    command(sys.executable, "-m", "pip", "download", *options, *platforms, *_requirements())
    return place


def take_clone(folder: Path) -> Path:
    """Copy what a clone holds: machines install from that, whatever is edited meanwhile."""
    clone = folder / "clone"
    shutil.rmtree(clone, ignore_errors=True)
    listed = command("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, clone / name)
    return clone


def find_mirror() -> str:
    """Return the first address that apt on this machine uses for Debian's packages."""
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            if line.startswith(("URIs:", "deb ")):
                return next(word for word in line.split() if "://" in word)
    raise MachineError("apt names no source of Debian's packages; give --mirror")


def _requirements() -> list[str]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = document["project"]["optional-dependencies"]
    needs = [*document["build-system"]["requires"], "wheel", *document["project"]["dependencies"]]
    return [*needs, *(need for extra in ("learning", "inference", "metrics", "tools") for need in extras[extra])]
