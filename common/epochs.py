"""The epoch of a process that signs: a number that grows with each of its starts, kept in a file."""

import contextlib
import logging
import time
from pathlib import Path

from common.errors import ConfigError, WorkError
from common.files import write_atomic, write_private

log = logging.getLogger(__name__)

EPOCH_MAX = 10**16 - 1
"""The largest epoch that a signature can hold."""


def next_epoch(path: Path) -> int:
    """Return an epoch above the one that the file keeps, at least the clock's seconds, and keep it in the file.

    One that cannot be kept counts all the same: the clock will be beyond it at the next start.
    """
    epoch = max(_kept_epoch(path) + 1, int(time.time()))
    try:
        write_atomic(path, str(epoch).encode())
    except WorkError as error:
        log.warning("the epoch of this start is not kept: %s", error)
    return epoch


def raise_epoch(path: Path, heard: int) -> None:
    """Let the next start sign with an epoch above `heard`. Raises ConfigError, WorkError."""
    kept = _kept_epoch(path)
    if not 0 <= heard < EPOCH_MAX:
        raise ConfigError(f"{heard} is no epoch: name the number before the dot in the device's log, as 1999999999")
    write_private(path, str(max(kept, heard)).encode(), mode=0o644)


def _kept_epoch(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        kept = int(path.read_text(encoding="ascii"))
        return kept if 0 <= kept < EPOCH_MAX else 0
    return 0
