"""Python beside fedpi's own: folders of users' code, and the processes that run a module of fedpi."""

import sys
from pathlib import Path

_added: list[str] = []
"""The folders of users' code that this process imports from."""


def extend_path(folders: str | tuple[str, ...]) -> None:
    """Let this process import from `folders`, the key `python_path`, after everything else: they shadow nothing.

    One that is not there harms nobody who needs no code from it: serving, or `status` typed by another account.
    """
    for folder in (folders,) if isinstance(folders, str) else folders:
        path = str(Path(folder).absolute())
        if path not in sys.path:
            sys.path.append(path)
            _added.append(path)


def missing_folder() -> str | None:
    """Return the first of the folders of users' code that is not there."""
    return next((folder for folder in _added if not Path(folder).is_dir()), None)


def child_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `module` in a process of its own.

    With -P, Python does not look into the working folder: a file `common.py` there is not taken for fedpi's package.
    """
    return [sys.executable, "-P", "-m", module, *arguments]
