"""One coordinator a state folder: whoever serves holds a lock, which the kernel lets go however its process ends."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import ConfigError
from common.files import hand_over, make_folders, state_error

TRIES = 5
PAUSE_S = 0.1


@contextmanager
def serving(folder: Path) -> Iterator[None]:
    """Hold the folder, made if need be.

    Raises ConfigError while another coordinator does, or if it is not writable, WorkError where the disk fails.
    """
    try:
        make_folders(folder)
        lock = _path(folder).open("w")
        hand_over(_path(folder), like=folder)
    except OSError as error:
        raise state_error(f"state: cannot write to {folder}", error) from error
    with lock:
        for _ in range(TRIES):  # more than one, because `is_served` holds it for the moment of its look
            if _take(lock.fileno(), fcntl.LOCK_EX):
                break
            time.sleep(PAUSE_S)
        else:
            raise ConfigError(f"another coordinator runs on {folder}; stop it, or name another 'state'")
        yield


def is_served(folder: Path) -> bool:
    """Whether a coordinator runs on the folder; raises ConfigError where this account may not look."""
    try:
        with _path(folder).open() as lock:
            return not _take(lock.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise state_error(f"state: cannot read {folder}", error) from error


def _path(folder: Path) -> Path:
    return folder / "lock"


def _take(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
