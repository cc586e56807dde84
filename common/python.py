"""Python beside fedpi's own: folders of users' code, and the processes that run a module of fedpi."""

import sys
from pathlib import Path

from common.errors import ConfigError


def extend_path(folders: str | tuple[str, ...]) -> None:
    """Let this process import from `folders`, the key `python_path`, after everything else: they shadow nothing.

    Raises ConfigError where one is no folder.
    """
    for folder in (folders,) if isinstance(folders, str) else folders:
        path = Path(folder).absolute()
        if not path.is_dir():
            raise ConfigError(f"python_path: {path} is no folder; name the folder that holds your module")
        if str(path) not in sys.path:
            sys.path.append(str(path))


def child_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs `module` in a process of its own.

    With -P, Python does not look into the working folder: a file `common.py` there is not taken for fedpi's package.
    """
    return [sys.executable, "-P", "-m", module, *arguments]
