"""What a power cut takes: everything that was written and not yet synced, torn at a seeded place; names, too.

A name that is new in a folder is durable once the folder was synced. What was deleted, or replaced, does not come back.
"""

import contextlib
import os
import random
import shutil
from pathlib import Path

JOURNAL = "journal.sqlite"
LASTING = ("lock", JOURNAL)
"""Beginnings of names that it leaves: the journal has a rule of its own."""
WAL_HEAD, FRAME_HEAD = 32, 24
KEPT = 0.5
"""Share of the names that were not synced, and are there all the same."""


class Disk:
    """Follows what below `state` is durable: all that is there at the start, and what was synced since it changed."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._durable = {_inode(path): _stamp(path) for path in self._files()}
        self._names = {_inode(folder): _listed(folder) for folder in self._folders() if folder.exists()}
        self._commit = self._frames()[:2]
        self._fsync = os.fsync
        os.fsync = self._sync  # type: ignore[assignment]  # nobody here syncs a file object

    def note_commit(self) -> None:
        """Note that all of the journal is durable now."""
        self._commit = self._frames()[:2]

    def cut(self, seed: int) -> None:
        """Tear what is not durable."""
        rng = random.Random(seed)
        for path in self._files():
            if not path.name.startswith(LASTING) and self._durable.get(_inode(path)) != _stamp(path):
                _tear(path, rng)
        for folder in self._folders():
            if folder.exists():  # its own name may be gone by now
                self._take_names(folder, rng)
        self._tear_journal(rng)

    def _sync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}")
        if path.is_dir():
            self._names[_inode(path)] = _listed(path)
        else:
            self._durable[_inode(path)] = _stamp(path)

    def _take_names(self, folder: Path, rng: random.Random) -> None:
        """Let some of the names go that are new in a folder: a file has its durable name again, or none."""
        durable = self._names.get(_inode(folder), {})
        for name, inode in sorted(_listed(folder).items()):
            if name in durable or name.startswith(LASTING) or rng.random() < KEPT:
                continue
            before = next(
                (old for old, known in durable.items() if known == inode and not (folder / old).exists()), None
            )
            with contextlib.suppress(FileNotFoundError):  # other threads go on for a moment
                _take_name(folder / name, None if before is None else folder / before)

    def _folders(self) -> list[Path]:
        return [self._state, *sorted(path for path in self._state.rglob("*") if path.is_dir())]

    def _files(self) -> list[Path]:
        return sorted(path for path in self._state.rglob("*") if path.is_file())

    def _frames(self) -> tuple[bytes, int, int, int]:
        """Return the write-ahead log's salt, its frames, how many of them are in the database already, their size.

        From the index beside the log, as SQLite's file format describes it.
        """
        index = self._state / f"{JOURNAL}-shm"
        head = index.read_bytes()[:100] if index.exists() else b""
        if len(head) < 100:
            return b"", 0, 0, 0
        return head[32:40], _number(head[16:20]), _number(head[96:100]), FRAME_HEAD + _number(head[14:16])

    def _tear_journal(self, rng: random.Random) -> None:
        salt, frames, copied, size = self._frames()
        if not size:
            return
        least = max(copied, self._commit[1] if salt == self._commit[0] else 0)
        kept = rng.randint(min(least, frames), frames)
        torn = rng.randrange(size) if kept < frames else 0
        os.truncate(self._state / f"{JOURNAL}-wal", WAL_HEAD + kept * size + torn)


def _tear(path: Path, rng: random.Random) -> None:
    size = path.stat().st_size
    kept = rng.randint(0, size)
    match rng.choice(("short", "zeros", "garbage", "whole")):
        case "short":
            os.truncate(path, kept)
        case "zeros":  # what a file system shows whose sizes are durable before their contents
            _overwrite(path, kept, bytes(size - kept))
        case "garbage":
            _overwrite(path, kept, rng.randbytes(size - kept))


def _overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def _take_name(path: Path, before: Path | None) -> None:
    if before is not None:
        path.rename(before)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _listed(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the names in a folder; those that others delete meanwhile, and of a folder that is not there, are none."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = _inode(path)
    return found


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")
