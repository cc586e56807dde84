"""The examples that come with fedpi: configurations, units, alert rules, a dashboard. `init` writes them out."""

from importlib import metadata
from pathlib import Path

import msgspec

from common.errors import ConfigError
from common.files import make_folder, write_private

MARK = Path("config/device.yaml")
OF_ROLE = {
    "coordinator": ("config/coordinator*.yaml", "config/monitoring/*", "systemd/fedpi-coordinator.*"),
    "device": ("config/device.yaml", "systemd/fedpi-device.*", "systemd/fedpi-inference.*", "systemd/serving.conf"),
}
"""What each role's `init` writes, below the folder that `find` returns."""


class Example(msgspec.Struct, frozen=True):
    """One file and what became of it: `written`, or `kept` where there was one already."""

    file: str
    state: str


def find() -> Path:
    """Return the folder that holds the examples: the clone's, or the one that was installed. Raises ConfigError."""
    clone = Path(__file__).resolve().parents[1]
    if (clone / "pyproject.toml").exists() and (clone / MARK).exists():
        return clone
    for file in metadata.files("fedpi") or ():
        if (place := Path(str(file.locate())).resolve()).match(f"share/fedpi/{MARK}") and place.exists():
            return place.parents[len(MARK.parts) - 1]
    raise ConfigError("the examples were not installed with fedpi; install it again, or take them from its repository")


def write(role: str, folder: Path) -> list[Example]:
    """Copy the examples of `role` into `folder`: configurations beside each other, units and monitoring below.

    A file that is there already stays as it is. Raises ConfigError, WorkError.
    """
    root, done = find(), []
    for source in sorted(path for pattern in OF_ROLE[role] for path in root.glob(pattern)):
        target = folder / str(source.relative_to(root)).removeprefix("config/")
        if is_new := not (target.exists() or target.is_symlink()):
            make_folder(target.parent, mode=0o755)
            write_private(target, source.read_bytes(), mode=0o644)  # whatever the umask: services read it
        done.append(Example(str(target), "written" if is_new else "kept"))
    return done
