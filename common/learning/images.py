"""A site's images from disk: a folder a label or a CSV `file,label`. Loads neither TensorFlow nor scikit-learn."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.config import DataConfig
from common.errors import ConfigError, DataError
from common.files import write_atomic
from common.learning.decoding import decode_image, read_image_file
from common.learning.seam import Examples, Site

FILE_COLUMNS = ("file", "filename", "file_name", "filepath", "file_path", "path", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "target")
"""What a CSV's columns may be called, the first that it has counts."""


@dataclass(frozen=True)
class Labelled:
    """An image file, its name for reports (`/` between folders), its label: 0 negative, 1 positive."""

    path: Path
    name: str
    label: int


def load_site(data: DataConfig, image_size: int) -> Site:
    """Load what `data` names as square uint8 RGB images of `image_size` pixels, sorted by name.

    What `data.unseen` names is not trained on even where it lies in the training folder. A file
    that is no image is skipped and named in `Site.skipped`. Raises ConfigError for a folder or CSV
    that is not there, DataError for data that cannot be learnt from.
    """
    try:
        unseen = _find_unseen(data)
        train = _find_train(data, {item.path.resolve() for item in unseen})
    except OSError as error:
        raise ConfigError(f"data: {error.filename}: {error.strerror}; correct the path or its rights") from error
    skipped: list[str] = []
    site = Site(_read(train, image_size, skipped), _read(unseen, image_size, skipped), tuple(skipped))
    problem = f"; the first problem is {skipped[0]}" if skipped else ""
    if not len(site.train):
        raise DataError(f"{_train_source(data)}: no usable image to train on; add JPEG or PNG files{problem}")
    if data.unseen and not len(site.unseen):
        raise DataError(f"{data.unseen}: no usable unseen image; add JPEG or PNG files{problem}")
    present = set(site.train.labels.tolist())
    if len(present) == 1:
        only, other = data.label_names[min(present)], data.label_names[1 - min(present)]
        raise DataError(
            f"{_train_source(data)}: all usable images to train on are labelled {only!r}; add some of {other!r}"
        )
    return site


def load_unseen(data: DataConfig, image_size: int) -> Site:
    """Load what to evaluate on: what `data.unseen` names or, without it, all of `data`; `train` is empty.

    One label is enough. Raises ConfigError for a folder or CSV that is not there, DataError where no image is usable.
    """
    try:
        items = _find_unseen(data) if data.unseen else _find_train(data, set())
    except OSError as error:
        raise ConfigError(f"data: {error.filename}: {error.strerror}; correct the path or its rights") from error
    skipped: list[str] = []
    site = Site(_read([], image_size, []), _read(items, image_size, skipped), tuple(skipped))
    if not len(site.unseen):
        raise DataError(f"{data.unseen or _train_source(data)}: no usable image; add JPEG or PNG files")
    return site


def find_images(folder: Path) -> list[Path]:
    """Every file below `folder` that is not hidden, sorted by its path; their content decides later."""
    found = []
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            found.append((name.as_posix(), path))
    return [path for _, path in sorted(found)]


def find_labelled(folder: Path, label_names: Sequence[str]) -> list[Labelled]:
    """The files of a folder with one folder a label, sorted by name; raises DataError where one is missing."""
    numbers = _numbers(label_names)
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.casefold() in numbers)
    items = [
        Labelled(path, path.relative_to(folder).as_posix(), numbers[below.name.casefold()])
        for below in folders
        for path in find_images(below)
    ]
    for label in label_names:
        if label.casefold() not in (below.name.casefold() for below in folders):
            raise DataError(f"{folder}: it has no folder {label!r}; make one folder a label, or name a CSV")
    return sorted(items, key=lambda item: item.name)


def read_label_csv(path: Path, images: Path | None, label_names: Sequence[str]) -> list[Labelled]:
    """Read a CSV with the columns `file` and `label` (or see FILE_COLUMNS and LABEL_COLUMNS), sorted by name.

    A file is sought beside the CSV and in `images`; a label is one of `label_names` in any case,
    or 0 or 1. Raises DataError that names the line.
    """
    numbers = {"0": 0, "1": 1, **_numbers(label_names)}
    folders = [path.parent] if images is None else [path.parent, images]
    seen: dict[Path, int] = {}
    items = []
    for line, file, label in _rows(path):
        where = f"{path}, line {line}"
        found = next((folder / file for folder in folders if (folder / file).is_file()), None)
        if found is None:
            raise DataError(f"{where}: there is no file {file!r} in {' or '.join(map(str, folders))}; correct it")
        if label.casefold() not in numbers:
            known = " or ".join(map(repr, label_names))
            raise DataError(f"{where}: the label {label!r} is unknown; write {known}, or 0 or 1")
        first = seen.setdefault(found.resolve(), line)
        if first != line:
            raise DataError(f"{where}: {file!r} already stands in line {first}; delete one of the two lines")
        items.append(Labelled(found, Path(file).as_posix(), numbers[label.casefold()]))
    return sorted(items, key=lambda item: item.name)


def write_label_csv(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Write rows of (file, label) as `read_label_csv` reads them. Raises WorkError."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "label"))
    writer.writerows(rows)
    write_atomic(path, text.getvalue().encode())


def _find_unseen(data: DataConfig) -> list[Labelled]:
    if data.unseen is None:
        return []
    source = Path(data.unseen).expanduser()
    if source.is_dir():
        return find_labelled(source, data.label_names)
    if source.is_file():
        return read_label_csv(source, _images_folder(data), data.label_names)
    raise ConfigError(f"data.unseen: there is no CSV or folder {data.unseen}; correct the path")


def _find_train(data: DataConfig, held_back: set[Path]) -> list[Labelled]:
    """What to train on: a folder leaves out what is held back, a CSV must not name it."""
    images = _images_folder(data)
    if data.labels is None:
        if images is None:
            raise ConfigError("data.images: not set; name a folder with one folder a label, or set data.labels")
        return [i for i in find_labelled(images, data.label_names) if i.path.resolve() not in held_back]
    if not Path(data.labels).expanduser().is_file():
        raise ConfigError(f"data.labels: there is no CSV {data.labels}; correct the path")
    items = read_label_csv(Path(data.labels).expanduser(), images, data.label_names)
    for item in items:
        if item.path.resolve() in held_back:
            raise DataError(f"{data.labels}: {item.name!r} is unseen too, by {data.unseen}; keep it in one of them")
    return items


def _images_folder(data: DataConfig) -> Path | None:
    if data.images is None:
        return None
    folder = Path(data.images).expanduser()
    if not folder.is_dir():
        raise ConfigError(f"data.images: there is no folder {data.images}; correct the path")
    return folder


def _train_source(data: DataConfig) -> str:
    return data.labels or data.images or "data"


def _rows(path: Path) -> list[tuple[int, str, str]]:
    """The CSV's lines as (number, file, label), without blank ones."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [name.strip().casefold() for name in next(reader, [])]
            lines = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: it is no CSV in UTF-8 ({error}); save it as UTF-8 with commas") from error
    file_column, label_column = (_column(header, names) for names in (FILE_COLUMNS, LABEL_COLUMNS))
    if file_column is None or label_column is None:
        raise DataError(f"{path}, line 1: the header is {','.join(header)[:80]!r}; it must be 'file,label'")
    rows = []
    for number, row in lines:
        if len(row) != len(header):
            raise DataError(f"{path}, line {number}: it has {len(row)} columns where the header has {len(header)}")
        rows.append((number, row[file_column].strip(), row[label_column].strip()))
    return rows


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _numbers(label_names: Sequence[str]) -> dict[str, int]:
    numbers = {name.casefold(): number for number, name in enumerate(label_names)}
    if len(numbers) < len(label_names):
        raise ConfigError(f"data.label_names: {label_names[0]!r} stands there twice; name two different labels")
    return numbers


def _read(items: Sequence[Labelled], image_size: int, skipped: list[str]) -> Examples:
    """Decode `items`; a sentence for each that is no image goes to `skipped`."""
    images, usable = [], []
    for item in items:
        try:
            images.append(decode_image(read_image_file(item.path), image_size))
        except DataError as error:
            skipped.append(f"{item.name}: {error}")
        else:
            usable.append(item)
    stacked = np.stack(images) if images else np.zeros((0, image_size, image_size, 3), np.uint8)
    labels = np.array([item.label for item in usable], np.int64)
    return Examples(stacked, labels, tuple(item.name for item in usable))
