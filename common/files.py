"""Durable files: a reader sees the old content or the new one, also after a power cut."""

import contextlib
import errno
import os
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from common.errors import ConfigError, DiskFullError, FedpiError, WorkError
from common.syncs import TALLY

DISK_STATES = {
    errno.ENOSPC: "its disk is full",
    errno.EDQUOT: "its disk is full",
    errno.EROFS: "its disk is read-only",
    errno.EIO: "its disk fails",
}
"""What a disk that takes no data now, and may again, is like, by the number of the error."""

START_S = 1.0
"""How long a sync waits for those that are to begin with it."""
DECRYPT = "decrypt it by: openssl pkey -in OLD -out NEW, and chmod 600 NEW"
"""What to do with a key that has a password: nobody is there to type it."""


def disk_error(what: str, error: OSError) -> WorkError:
    """Return what to raise for a disk that failed at `what`: a DiskFullError where waiting may help."""
    if (state := DISK_STATES.get(error.errno or 0)) is not None:
        return DiskFullError(f"{what}: {error.strerror}", state)
    return WorkError(f"{what}: {error.strerror}")


def unreadable(what: str, error: OSError) -> FedpiError:
    """Return what to raise for a file of the operator's that `what` names: only a failing disk mends itself."""
    if error.errno == errno.EIO:
        return disk_error(what, error)
    return ConfigError(f"{what}: {error.strerror}; correct the path, or who may read it")


def state_error(what: str, error: OSError) -> FedpiError:
    """Return what to raise where a state folder cannot be used: ConfigError unless it is the disk that fails."""
    if error.errno in DISK_STATES:
        return disk_error(what, error)
    return ConfigError(f"{what}: {error.strerror}; correct 'state', or run this as the account that the folder is of")


def see_writable(folder: Path, *, is_tried: bool) -> None:
    """Raise DiskFullError where the disk of `folder` takes no data now: read-only, or, if `is_tried`, by writing."""
    try:
        if is_tried or os.statvfs(folder).f_flag & os.ST_RDONLY:
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(b"0")
                _flush(file)
    except OSError as error:
        if error.errno in DISK_STATES:
            raise disk_error(f"{folder}: cannot write", error) from error


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: temporary file, fsync, rename, fsync of the folder. Raises WorkError.

    Written by root, it belongs to the owner of its folder.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        make_folders(path.parent)
        with temporary.open("wb") as file:
            file.write(data)
            _flush(file)
        hand_over(temporary, like=path.parent)
        publish(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise disk_error(f"{path}: cannot write", error) from error


def write_private(path: Path, data: bytes, *, mode: int = 0o600, like: Path | None = None) -> None:
    """Replace `path` by `data`, with no right beyond `mode` from its first byte on. Raises WorkError.

    Written by root, it belongs to whom it belonged to before, or to the owner of `like`, by default of its folder.
    """
    write_together([PrivateFile(path, data, mode, like)])


@dataclass(frozen=True)
class PrivateFile:
    """What `write_private` is told."""

    path: Path
    data: bytes
    mode: int = 0o600
    like: Path | None = None

    @property
    def draft(self) -> Path:
        """Where it is written before it takes its place."""
        return self.path.with_name(f".{self.path.name}.tmp")

    def write(self) -> None:
        """Write the draft, durably."""
        self.draft.unlink(missing_ok=True)
        with os.fdopen(os.open(self.draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, self.mode), "wb") as file:
            os.fchmod(file.fileno(), self.mode)  # whatever the umask
            file.write(self.data)
            _flush(file)
        hand_over(self.draft, like=self.path if self.path.exists() else self.like or self.path.parent)


def write_together(files: Sequence[PrivateFile]) -> None:
    """Write several files as `write_private` does; none is replaced before all are written. Raises WorkError."""
    path = None
    try:
        for file in files:
            path = file.path
            file.write()
        for file in files:
            path = file.path
            publish(file.draft, file.path)
    except OSError as error:
        for file in files:
            with contextlib.suppress(OSError):
                file.draft.unlink()
        raise disk_error(f"{path}: cannot write", error) from error


def make_folder(path: Path, *, mode: int | None = None) -> None:
    """Make a folder, and those above it, unless it is there; made by root, it belongs to the owner of the one above.

    With no `mode` the umask decides who may use it. Raises WorkError.
    """
    try:
        make_folders(path, mode)
    except OSError as error:
        raise disk_error(f"{path}: cannot make the folder", error) from error


def make_folders(path: Path, mode: int | None = None) -> None:
    """Do what `make_folder` does; raises OSError."""
    for folder in [folder for folder in (*reversed(path.parents), path) if not folder.is_dir()]:
        folder.mkdir(mode=0o777 if mode is None else mode, exist_ok=True)  # another process may be faster
        if mode is not None:
            folder.chmod(mode)
        hand_over(folder, like=folder.parent)


def hand_over(path: Path, *, like: Path) -> None:
    """Give what root has made to the owner of `like`. Raises OSError."""
    if os.geteuid() != 0:
        return
    owner, found = like.stat(), path.lstat()
    if (owner.st_uid, owner.st_gid) != (found.st_uid, found.st_gid):
        # The folder may be another account's, which could put a link in the place of the file.
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def publish(temporary: Path, path: Path) -> None:
    """Give an fsynced file its final name, durably. Raises OSError."""
    temporary.replace(path)
    sync(path.parent)


def move(path: Path, to: Path | None) -> None:
    """Rename a file, or delete it. Raises WorkError."""
    try:
        path.unlink(missing_ok=True) if to is None else path.replace(to)
    except OSError as error:
        raise disk_error(f"{path}: cannot {'delete' if to is None else 'move'} it", error) from error


def sync(*paths: Path) -> None:
    """Make files' contents, and folders' names, durable. Raises OSError.

    All begin at once, so the slowest is waited for and no two of them in turn: what is to be durable before another is
    synced by a call of its own.
    """
    TALLY.add(calls=len(paths), waits=1)
    with contextlib.ExitStack() as stack:
        descriptors = []
        for path in paths:
            descriptors.append(os.open(path, os.O_RDONLY))
            stack.callback(os.close, descriptors[-1])
        if len(paths) == 1:
            os.fsync(descriptors[0])
            return
        start = threading.Barrier(len(paths))
        with ThreadPoolExecutor(len(paths), "sync") as pool:
            list(pool.map(_sync, descriptors, [start] * len(paths)))


def _sync(descriptor: int, start: threading.Barrier) -> None:
    with contextlib.suppress(threading.BrokenBarrierError):  # too few threads could be had: one after the other, then
        start.wait(START_S)
    os.fsync(descriptor)


def _flush(file: IO[bytes]) -> None:
    """Make what was written to a file durable."""
    file.flush()
    TALLY.add(calls=1, waits=1)
    os.fsync(file.fileno())
