"""CSVs of `file,label`, as spreadsheets on any system write them."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from common.errors import DataError
from common.files import write_atomic
from common.learning.folders import Labelled, alike, alike_in_unicode, label_numbers

FILE_COLUMNS = ("file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "target")
"""What a CSV's columns may be called, the first that it has counts."""
MAX_CSV_BYTES = 2**25
_SEPARATORS = ",;\t|"
_WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def read_label_csv(path: Path, images: Path | None, label_names: Sequence[str]) -> list[Labelled]:
    """Read a CSV with the columns `file` and `label` (or see FILE_COLUMNS and LABEL_COLUMNS), sorted by name.

    A file is sought beside the CSV and in `images`, its folders parted by `/` or a backslash; a label is one
    of `label_names` in any case, or 0 or 1 where no name is a number. Raises DataError that names the line.
    """
    numbers = label_numbers(label_names)
    finder = _Finder([path.parent] if images is None else [path.parent, images])
    seen: dict[Path, int] = {}
    items = []
    for line, file, label in _rows(path):
        where = f"{path}, line {line}"
        if (found := finder.find(file)) is None:
            raise DataError(f"{where}: {finder.missing(file)}")
        if alike(label) not in numbers:
            known = ", or ".join([" or ".join(map(repr, label_names)), *["0 or 1"] * (len(numbers) > len(label_names))])
            raise DataError(f"{where}: the label {label!r} is unknown; write {known}")
        first = seen.setdefault(found[0].resolve(), line)
        if first != line:
            raise DataError(f"{where}: {file!r} already stands in line {first}; delete one of the two lines")
        items.append(Labelled(found[0], found[1], numbers[alike(label)]))
    return sorted(items, key=lambda item: alike_in_unicode(item.name))


def write_label_csv(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Write rows of (file, label) as `read_label_csv` reads them. Raises WorkError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "label"))
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())


class _Finder:
    """Finds files by the names that CSVs give them, in one of some folders. Lists each folder once at most."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._lists: dict[Path, dict[str, str]] = {}

    def find(self, name: str) -> tuple[Path, str] | None:
        """Return the file and its name with `/` between folders; None where there is none. Raises OSError."""
        names = dict.fromkeys((name, name.replace("\\", "/")))
        for written in filter(None, names):
            for folder in self._folders:
                if _is_file(path := folder / written):
                    return path, Path(written).as_posix()
        for written in () if name.isascii() else names:
            for folder in self._folders:
                if (other := self._in_unicode(folder, Path(written).parts)) is not None and _is_file(other):
                    return other, Path(written).as_posix()
        return None

    def missing(self, name: str) -> str:
        """Say that there is no such file, and what may be meant."""
        if not name:
            return "it names no file; write one, or delete the line"
        if _WINDOWS_PATH.match(name):
            return f"{name!r} is a path of another computer; write it from the CSV's folder on, such as yes/scan1.png"
        folder = (self._folders[-1] / name.replace("\\", "/")).parent
        near = next((other for other in self._list(folder) if alike(other) == alike(_last(name))), None)
        hint = f"there is {near!r}, which differs in upper and lower case" if near else "correct it"
        return f"there is no file {name!r} in {' or '.join(map(str, self._folders))}; {hint}"

    def _in_unicode(self, folder: Path, parts: Sequence[str]) -> Path | None:
        """Go down `parts`, each of which may stand on the disk in another Unicode form."""
        for part in parts:
            there = part if part == ".." else self._list(folder).get(alike_in_unicode(part))
            if there is None:
                return None
            folder = folder / there
        return folder

    def _list(self, folder: Path) -> dict[str, str]:
        """The names in `folder` by their Unicode form."""
        if folder not in self._lists:
            try:
                names = sorted(path.name for path in folder.iterdir())
            except (OSError, ValueError):
                names = []
            self._lists[folder] = {alike_in_unicode(name): name for name in names}
        return self._lists[folder]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except PermissionError:
        raise
    except (OSError, ValueError):  # a name that is too long, or that holds a zero byte
        return False


def _last(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2]


def _rows(path: Path) -> list[tuple[int, str, str]]:
    """The CSV's lines as (number, file, label), without blank ones."""
    text = _text(path)
    start = 1 if (given := re.match(r"sep=(.)\r?\n?", text)) else 0  # Excel's own line for the separator
    text = text[given.end() :] if given else text
    try:
        separator, columns, width = _layout(path, text, given[1] if given else None)
        rows = [*_cells(text, separator)]
    except csv.Error as error:
        raise DataError(f"{path}: it is no CSV ({error}); save it as UTF-8 with commas") from error
    found = []
    for number, row in rows[1:]:
        if not row:
            continue
        if len(row) > width or len(row) <= max(columns):
            raise DataError(f"{path}, line {number + start}: it has {len(row)} columns where the header has {width}")
        found.append((number + start, row[columns[0]], row[columns[1]]))
    return found


def _text(path: Path) -> str:
    """The text of a CSV in UTF-8, or in UTF-16 with the mark that spreadsheets put at its start."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CSV_BYTES + 1)
        if len(data) > MAX_CSV_BYTES:
            raise DataError(f"{path}: it is larger than {MAX_CSV_BYTES >> 20} MiB; name fewer files in it")
        text = data.decode("utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig").lstrip("\ufeff")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: it is no CSV in UTF-8 ({error}); save it as UTF-8 with commas") from error
    if "\0" in text:
        raise DataError(f"{path}: it is no CSV in UTF-8 (it holds zero bytes); save it as UTF-8 with commas")
    return text


def _layout(path: Path, text: str, given: str | None) -> tuple[str, tuple[int, int], int]:
    """What separates the columns, which two are the file's and the label's, and how many there are."""
    first = re.split(r"[\r\n]", text, maxsplit=1)[0]
    for separator in given or _SEPARATORS:
        try:
            header = [name.casefold() for _, row in _cells(first, separator) for name in row]
        except csv.Error:  # quotes around another separator's cells
            continue
        file, label = (_column(header, names) for names in (FILE_COLUMNS, LABEL_COLUMNS))
        if file is not None and label is not None:
            return separator, (file, label), len(header)
    raise DataError(f"{path}, line 1: the header is {first[:80]!r}; it must be 'file,label'")


def _cells(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row with the number of its line; blanks after a closing quote, which csv does not allow, go first."""
    blank = " " if separator == "\t" else "[ \t]"
    text = re.sub(rf'(?<="){blank}+(?=[\r\n{re.escape(separator)}]|\Z)', "", text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True)
    for row in reader:
        yield reader.line_num, _trimmed(row)


def _trimmed(row: Sequence[str]) -> list[str]:
    """The cells without blanks around them, and without empty ones at the end."""
    cells = [cell.strip() for cell in row]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)
