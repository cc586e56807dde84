"""Python beside fedpi's own: folders of users' code, and the processes that run a module of fedpi."""

import sys
from pathlib import Path

from common.errors import ConfigError

Folders = str | tuple[str, ...]
"""The key `python_path`: a folder or several, in which `package.module:function` is looked for."""


def extend_path(folders: Folders) -> None:
    """Let this process import from `folders`, after everything else: they shadow nothing. `~` is a home folder.

    Raises ConfigError where one is no folder.
    """
    for folder in (folders,) if isinstance(folders, str) else folders:
        try:
            path = Path(folder).expanduser().absolute()
        except RuntimeError as error:
            raise ConfigError(f"python_path: {folder!r}: there is no such user here; write the whole path") from error
        if not path.is_dir():
            raise ConfigError(f"python_path: {path} is no folder; name the folder that holds your module")
        if str(path) not in sys.path:
            sys.path.append(str(path))


def child_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `module` in a process of its own.

    With -P, Python does not look into the working folder: a file `common.py` there is not taken for fedpi's package.
    """
    return [sys.executable, "-P", "-m", module, *arguments]
