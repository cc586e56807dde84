"""Image files in folders, one folder a label: every file once, and a sentence for whatever cannot be read."""

import errno
import os
import re
import stat
import unicodedata
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ConfigError, DataError
from common.plain_text import printable

SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
"""What Windows puts beside pictures, in lower case: no data, and no word about it."""
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
_SHOWN = 12
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?")
_LINKS = {errno.ENOENT: "it is a link to nothing", errno.ELOOP: "it is a link that leads to itself"}


@dataclass(frozen=True)
class Labelled:
    """An image file, its name for reports (`/` between folders), its label: 0 negative, 1 positive."""

    path: Path
    name: str
    label: int


@dataclass(frozen=True)
class Found:
    """Labelled files, sorted by name, and a printable sentence for each file or folder that is left out."""

    items: list[Labelled]
    skipped: list[str] = field(default_factory=list)


def alike(name: str) -> str:
    """Return what two names share that differ in case or in their Unicode form only."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def label_numbers(label_names: Sequence[str]) -> dict[str, int]:
    """Map each label in the form of `alike` to 0 or 1; so do "0" and "1" themselves where no label's name is a number.

    Raises ConfigError where both labels have one name.
    """
    numbers = _by_name(label_names)
    if not any(_NUMBER.fullmatch(name) for name in label_names):
        numbers |= {"0": 0, "1": 1}
    return numbers


def _by_name(label_names: Sequence[str]) -> dict[str, int]:
    numbers = {alike(name): number for number, name in enumerate(label_names)}
    if len(numbers) < len(label_names):
        raise ConfigError(f"data.label_names: {label_names[0]!r} stands there twice; name two different labels")
    return numbers


def find_labelled(folder: Path, label_names: Sequence[str], apart: Path | None = None) -> Found:
    """Find the files of a folder with one folder a label; what lies beside these is named, but for `apart`.

    Links are followed, each folder counts once. Hidden files are left out without a word. Raises DataError
    where a label's folder is missing, OSError where `folder` cannot be listed.
    """
    numbers = _by_name(label_names)
    below: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.iterdir()):
        (below if path.is_dir() and alike(path.name) in numbers else others).append(path)
    for label in label_names:
        if alike(label) not in {alike(path.name) for path in below}:
            raise DataError(f"{folder}: it has no folder {label!r}, {_there(folder)}; make one folder a label")
    walk = _Walk(folder)
    items = [
        Labelled(path, path.relative_to(folder).as_posix(), numbers[alike(path.relative_to(folder).parts[0])])
        for path in walk.files(below)
    ]
    beside = [sentence for path in others if (sentence := _beside(path, label_names, apart))]
    return Found(sorted(items, key=lambda item: alike_in_unicode(item.name)), [*beside, *walk.skipped])


def find_images(folder: Path) -> list[Path]:
    """Every file below `folder` that is not hidden, sorted by its path; their content decides later."""
    return _Walk(folder).files([folder])


def alike_in_unicode(name: str) -> str:
    """Return `name` in the Unicode form by which names are compared and sorted (NFC)."""
    return unicodedata.normalize("NFC", name)


def as_stored(path: Path) -> Path:
    """Return `path` with its parts in the Unicode form in which they stand on the disk; itself where it is not there.

    Raises OSError.
    """
    if str(path).isascii() or path.exists():
        return path
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        here = found / part
        if not here.exists() and found.is_dir():
            form = alike_in_unicode(part)
            here = next((other for other in sorted(found.iterdir()) if alike_in_unicode(other.name) == form), here)
        found = here
    return found


class _Walk:
    """Goes through folders without end or repetition, links last, and notes what cannot be read."""

    def __init__(self, root: Path) -> None:
        self.skipped: list[str] = []
        self._root = root
        above = root.resolve()
        self._above = {_identity(path.stat()) for path in (above, *above.parents)}
        self._seen: set[tuple[int, int]] = set()
        self._links: deque[Path] = deque()
        self._files: list[Path] = []

    def files(self, folders: Sequence[Path]) -> list[Path]:
        """Return the files below `folders`, sorted by their names in one Unicode form."""
        left = deque(folder for folder in folders if not folder.is_symlink())
        self._links += [folder for folder in folders if folder.is_symlink()]
        while left or self._links:
            folder = left.popleft() if left else self._links.popleft()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name) if self._is_new(folder) else []
            except OSError as error:
                self._skip(folder, f"the folder cannot be read ({error.strerror})")
                continue
            left += [Path(entry.path) for entry in entries if self._is_folder(entry)]
        return sorted(self._files, key=lambda path: alike_in_unicode(path.relative_to(self._root).as_posix()))

    def _is_new(self, folder: Path) -> bool:
        identity = _identity(folder.stat())
        if identity in self._seen or (identity in self._above and folder != self._root):
            leads = "above it" if identity in self._above else "whose files count already"
            self._skip(folder, f"it is a link to a folder {leads}")
            return False
        self._seen.add(identity)
        return True

    def _is_folder(self, entry: "os.DirEntry[str]") -> bool:
        """Say whether to go into it now; a file and a link are put where they belong."""
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name.casefold() in SYSTEM_FILES:
            return False
        try:
            mode = path.stat().st_mode
        except OSError as error:
            self._skip(path, _LINKS.get(error.errno or 0, f"it cannot be read ({error.strerror})"))
            return False
        if stat.S_ISREG(mode):
            self._files.append(path)
        elif stat.S_ISDIR(mode) and entry.is_symlink():
            self._links.append(path)
        elif not stat.S_ISDIR(mode):
            self._skip(path, "it is no file, but a pipe, a socket or a device")
        return stat.S_ISDIR(mode) and not entry.is_symlink()

    def _skip(self, path: Path, reason: str) -> None:
        self.skipped.append(printable(f"{path.relative_to(self._root).as_posix()}: {reason}"))


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def _there(folder: Path) -> str:
    """Which folders are in `folder`, and which links lead to nothing."""
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    names = [repr(path.name) for path in paths if path.is_dir()]
    names += [f"{path.name!r} (a link to nothing)" for path in paths if path.is_symlink() and not path.exists()]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"but {', '.join(names[:_SHOWN])}{more}" if names else "and no other"


def _beside(path: Path, label_names: Sequence[str], apart: Path | None) -> str:
    """A sentence for a folder or an image that no label's folder holds; nothing for any other file."""
    if path.name.startswith(".") or (apart is not None and path.resolve() in (apart, *apart.parents)):
        return ""
    if path.is_dir():
        return printable(f"{path.name}: the folder is that of no label ({', '.join(label_names)})")
    if path.is_symlink() and not path.exists():
        return printable(f"{path.name}: it is a link to nothing")
    if path.suffix.casefold() in _IMAGE_SUFFIXES:
        return printable(f"{path.name}: it lies in no label's folder")
    return ""
