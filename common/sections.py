"""Replacing whole sections of a YAML file: comments and all other sections stay as people wrote them."""

import re
from collections.abc import Mapping
from pathlib import Path

from common.config import read_text
from common.errors import ConfigError
from common.files import write_private
from common.yaml_text import dump, parse


def replace(text: str, sections: Mapping[str, object]) -> str:
    """Put each of `sections` in the place of the top-level section of its name, or at the end.

    Raises ConfigError where the result would not say that and all that `text` said otherwise, as with a
    file that is no block mapping.
    """
    blocks = _blocks(text)
    for key, value in sections.items():
        written = dump({key: value})
        blocks[key] = written + _tail(blocks.get(key, ""))
    made = "".join(block if block.endswith("\n") or not block else f"{block}\n" for block in blocks.values())
    before = parse(text, "the text").plain or {}
    try:
        is_right = parse(made, "the result").plain == {**before, **sections}
    except (ConfigError, TypeError, ValueError):
        is_right = False
    if not is_right:
        raise ConfigError("cannot replace its sections; write the keys at the start of their lines")
    return made


def updated(path: Path, sections: Mapping[str, object]) -> str:
    """Return the text of the file `path`, which may not be there yet, with other sections. Raises ConfigError."""
    text = read_text(path, "the configuration") if path.exists() else ""
    try:
        return replace(text, sections)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def update(path: Path, sections: Mapping[str, object]) -> None:
    """Replace sections of the file `path`, which may not be there yet. Raises ConfigError, WorkError."""
    made, is_there = updated(path, sections), path.exists()
    if not is_there or made != read_text(path, "the configuration"):
        write_private(path, made.encode(), mode=path.stat().st_mode & 0o777 if is_there else 0o644)


def _blocks(text: str) -> dict[str, str]:
    """Cut a file where a top-level key begins; what comes before the first is the block of no name."""
    starts = [*re.finditer(r"^([A-Za-z_]\w*):", text, re.MULTILINE)]
    ends = [start.start() for start in starts[1:]] + [len(text)] * bool(starts)
    head = text[: starts[0].start()] if starts else text
    return {"": head, **{start[1]: text[start.start() : end] for start, end in zip(starts, ends, strict=True)}}


def _tail(block: str) -> str:
    """What stands below a section and belongs to the next one: comments at the margin and empty lines."""
    lines = block.splitlines(keepends=True)
    kept = len(lines)
    while kept > 1 and (not lines[kept - 1].strip() or lines[kept - 1].startswith("#")):
        kept -= 1
    return "".join(lines[kept:])
