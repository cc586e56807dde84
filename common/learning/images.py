"""A site's images from disk: a folder a label or a CSV `file,label`. Loads neither TensorFlow nor scikit-learn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.config import DataConfig
from common.errors import ConfigError, DataError
from common.learning.decoding import decode_image, read_image_file
from common.learning.folders import Found, Labelled, as_stored, find_labelled
from common.learning.label_csv import read_label_csv
from common.learning.seam import Examples, Site
from common.plain_text import printable


def load_site(data: DataConfig, image_size: int) -> Site:
    """Load what `data` names as square uint8 RGB images of `image_size` pixels, sorted by name.

    What `data.unseen` names is not trained on even where it lies in the training folder. What cannot be
    used is named in `Site.skipped`. Raises ConfigError for a folder or CSV that is not there, DataError
    for data that cannot be learnt from.
    """
    try:
        unseen = _find_unseen(data)
        train = _find_train(data, {item.path.resolve() for item in unseen.items})
    except OSError as error:
        raise ConfigError(f"data: {error.filename}: {error.strerror}; correct the path or its rights") from error
    skipped = [*train.skipped, *unseen.skipped]
    site = Site(_read(train.items, image_size, skipped), _read(unseen.items, image_size, skipped), tuple(skipped))
    if not len(site.train):
        raise DataError(f"{_train_source(data)}: no usable image to train on; {_cure(skipped)}")
    if data.unseen and not len(site.unseen):
        raise DataError(f"{data.unseen}: no usable unseen image; {_cure(skipped)}")
    present = set(site.train.labels.tolist())
    if len(present) == 1:
        only, other = data.label_names[min(present)], data.label_names[1 - min(present)]
        raise DataError(
            f"{_train_source(data)}: all usable images to train on are labelled {only!r}; add some of {other!r}"
            f"{_first(skipped)}"
        )
    return site


def load_unseen(data: DataConfig, image_size: int) -> Site:
    """Load what to evaluate on: what `data.unseen` names or, without it, all of `data`; `train` is empty.

    One label is enough. Raises ConfigError for a folder or CSV that is not there, DataError where no image is usable.
    """
    try:
        found = _find_unseen(data) if data.unseen else _find_train(data, set())
    except OSError as error:
        raise ConfigError(f"data: {error.filename}: {error.strerror}; correct the path or its rights") from error
    skipped = [*found.skipped]
    site = Site(_read([], image_size, []), _read(found.items, image_size, skipped), tuple(skipped))
    if not len(site.unseen):
        raise DataError(f"{data.unseen or _train_source(data)}: no usable image; {_cure(skipped)}")
    return site


def _cure(skipped: Sequence[str]) -> str:
    return f"add JPEG or PNG files{_first(skipped)}"


def _first(skipped: Sequence[str]) -> str:
    return f"; the first problem is {skipped[0]}" if skipped else ""


def _find_unseen(data: DataConfig) -> Found:
    if data.unseen is None:
        return Found([])
    source = as_stored(Path(data.unseen))
    if source.is_dir():
        return find_labelled(source, data.label_names)
    if source.is_file():
        return Found(read_label_csv(source, _images_folder(data), data.label_names))
    raise ConfigError(f"data.unseen: there is no CSV or folder {data.unseen}; correct the path")


def _find_train(data: DataConfig, held_back: set[Path]) -> Found:
    """What to train on: a folder leaves out what is held back, a CSV must not name it."""
    images = _images_folder(data)
    if data.labels is None:
        if images is None:
            raise ConfigError("data.images: not set; name a folder with one folder a label, or set data.labels")
        found = find_labelled(images, data.label_names, Path(data.unseen).resolve() if data.unseen else None)
        return Found([item for item in found.items if item.path.resolve() not in held_back], found.skipped)
    listed = as_stored(Path(data.labels))
    if not listed.is_file():
        raise ConfigError(f"data.labels: there is no CSV {data.labels}; correct the path")
    items = read_label_csv(listed, images, data.label_names)
    for item in items:
        if item.path.resolve() in held_back:
            raise DataError(f"{data.labels}: {item.name!r} is unseen too, by {data.unseen}; keep it in one of them")
    return Found(items)


def _images_folder(data: DataConfig) -> Path | None:
    if data.images is None:
        return None
    folder = as_stored(Path(data.images))
    if not folder.is_dir():
        raise ConfigError(f"data.images: there is no folder {data.images}; correct the path")
    return folder


def _train_source(data: DataConfig) -> str:
    return data.labels or data.images or "data"


def _read(items: Sequence[Labelled], image_size: int, skipped: list[str]) -> Examples:
    """Decode `items`; a sentence for each that is no image goes to `skipped`."""
    images, usable = [], []
    for item in items:
        try:
            images.append(decode_image(read_image_file(item.path), image_size))
        except DataError as error:
            skipped.append(printable(f"{item.name}: {error}"))
        else:
            usable.append(item)
    stacked = np.stack(images) if images else np.zeros((0, image_size, image_size, 3), np.uint8)
    labels = np.array([item.label for item in usable], np.int64)
    return Examples(stacked, labels, tuple(printable(item.name) for item in usable))
