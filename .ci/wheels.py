"""Show that everything fedpi needs resolves to wheels for 64-bit Raspberry Pi OS: nothing is built on a Pi.

Prints a line for each Python version, and fails where a requirement has no wheel.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

# Raspberry Pi OS 12 has glibc 2.36 and Python 3.11; 13 has glibc 2.41 and Python 3.13.
SYSTEMS = {"3.11": 36, "3.13": 41}
EXTRAS = ("learning", "inference", "broker", "metrics", "tools")


def requirements() -> list[str]:
    """Return what a Pi and a coordinator install."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *(need for extra in EXTRAS for need in project["optional-dependencies"][extra])]


def platforms(glibc: int) -> list[str]:
    """Return pip's options for the wheel tags that a glibc 2.N on aarch64 takes."""
    tags = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, glibc + 1))]
    return [option for tag in tags for option in ("--platform", tag)]


def resolve(version: str, glibc: int) -> list[str]:
    """Resolve for one system; returns `name version` of every wheel."""
    report = Path("build") / f"wheels-{version}.json"
    report.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    options = ["--target", "build/wheels", "--only-binary", ":all:", "--python-version", version]
    subprocess.run([*command, *options, *platforms(glibc), "--report", str(report), *requirements()], check=True)
    found = json.loads(report.read_text(encoding="utf-8"))["install"]
    if built := [item["metadata"]["name"] for item in found if not item["download_info"]["url"].endswith(".whl")]:
        sys.exit(f"no wheel for Python {version} on aarch64: {', '.join(built)}")
    return sorted(f"{item['metadata']['name']} {item['metadata']['version']}" for item in found)


if __name__ == "__main__":
    for python, libc in SYSTEMS.items():
        wheels = resolve(python, libc)
        print(f"aarch64, Python {python}: {len(wheels)} wheels: {', '.join(wheels)}")
