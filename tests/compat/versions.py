"""Other versions of fedpi than this one, as wheels: a later one made of these sources, and those that were released.

A release's wheel is kept in `releases` as it was published (CONTRIBUTING.md). A wheel of Python alone runs wherever its
requirements are, needs neither network nor history, and is not what a copy of the sources would be: something to mend.
"""

import ast
import re
import tomllib
from pathlib import Path

from tests.wheels import ROOT, build, copy_sources

RELEASES = Path(__file__).with_name("releases")
FIRST = (0, 2, 0)
"""The first version that spoke protocol 2."""
OPTION, ABILITY = "offset", "training:offset"
FIELD = '    later: str = ""'
_EDITS = {
    "common/plan.py": ("", f'\nNEWER_OPTIONS["{OPTION}"] = "{ABILITY}"\n'),
    "common/learning/numpy_learner.py": ("% 1000 + 1) / 1024)", f" + np.float32(training.{OPTION})"),
}
"""Texts that stand once, and what the later version has behind them; at the end of a file where there is none."""


def this_version() -> str:
    """Return this version's number."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def later_version() -> str:
    """Return the number of the version that `later_wheel` makes."""
    major, minor, _ = parse(this_version())
    return f"{major}.{minor + 1}.0"


def later_wheel(folder: Path) -> Path:
    """Make what a version after this one may be: it has grown as the protocol's document allows.

    Every message and document has a further field, a training the further option `offset`, which `numpy` adds to what
    it adds anyway and for which a device names an ability.
    """
    copy_sources(folder)
    for name in ("messages", "coordinators"):
        _extend(folder / "common" / f"{name}.py", FIELD)
    _extend(folder / "common" / "plan.py", f"    {OPTION}: float = 0.0", "Training")
    for name, (mark, behind) in _EDITS.items():
        _replace(folder / name, mark, mark + behind)
    _replace(folder / "pyproject.toml", f'version = "{this_version()}"', f'version = "{later_version()}"')
    return build(folder)


def kept_wheels() -> dict[str, Path]:
    """Return the wheels of released versions by their numbers."""
    return {path.name.split("-")[1]: path for path in sorted(RELEASES.glob("*.whl"))}


def listed() -> dict[str, bool]:
    """Return the versions that the changelog lists, the newest first, and whether each is released."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.findall(r"^## (\d+\.\d+\.\d+)(.*)$", text, re.MULTILINE)
    return {number: "unreleased" not in rest for number, rest in found}


def parse(number: str) -> tuple[int, ...]:
    """Return a version's number so that it can be compared."""
    return tuple(map(int, number.split(".")))


def _extend(path: Path, field: str, only: str | None = None) -> None:
    """Give the messages of a module, or the struct `only`, a further field."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    chosen = [node for node in classes if (node.name == only if only else "Wire" in map(ast.unparse, node.bases))]
    assert chosen, path
    for node in reversed(chosen):
        assert node.end_lineno is not None
        lines.insert(node.end_lineno, field)
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    if not old:
        path.write_text(text + new, encoding="utf-8")
        return
    assert text.count(old) == 1, f"{path.name} has no longer one {old!r}: see tests/compat/versions.py"
    path.write_text(text.replace(old, new), encoding="utf-8")
