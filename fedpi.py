"""Where fedpi's programs start. The name of this module is fedpi's own; `broker`, `common`, `device` are others' too.

`python -m fedpi coordinator ARGUMENT...` is `fedpi-coordinator ARGUMENT...`, and so for broker and device. Imports
nothing of the four packages before it knows that they are fedpi's.
"""

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROLES = ("broker", "coordinator", "device")
PACKAGES = (*ROLES, "common")
WRONG_USE, WRONG_SETTINGS = 2, 78


def broker() -> None:
    """Run `fedpi-broker`."""
    _start("broker")


def coordinator() -> None:
    """Run `fedpi-coordinator`."""
    _start("coordinator")


def device() -> None:
    """Run `fedpi-device`."""
    _start("device")


def foreign() -> str | None:
    """Return one sentence about a package of fedpi that is not the one beside this module; None where all are."""
    for name in PACKAGES:
        ours, found = HERE / name / "__init__.py", _origin(name)
        if found is None:
            return f"the package '{name}' is missing in {HERE}; install fedpi again"
        if found != ours:
            return (
                f"the package '{name}' comes from {found} instead of {ours.parent}; rename that file or folder, start "
                "in another folder, or take it out of PYTHONPATH (folders of your own: the key python_path)"
            )
        if "fedpi" not in ours.read_text(encoding="utf-8", errors="replace"):
            return (
                f"the package '{name}' in {ours.parent} is another project's that was installed over fedpi's; "
                "install fedpi into a virtual environment of its own"
            )
    return None


def _origin(name: str) -> Path | None:
    spec = find_spec(name)
    if spec is None:
        return None
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
    return Path(places[0] or "").resolve() if places else None


def _start(role: str) -> None:
    if (reason := foreign()) is not None:
        sys.stderr.write(f"fedpi-{role}: {reason}\n")
        sys.exit(WRONG_SETTINGS)
    import_module(f"{role}.cli").main(prog_name=f"fedpi-{role}")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ROLES:
        sys.stderr.write(f"usage: python -m fedpi {{{','.join(ROLES)}}} ARGUMENT...\n")
        sys.exit(WRONG_USE)
    _start(sys.argv.pop(1))
