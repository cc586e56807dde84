"""Finding a site's images in a folder as people have them, without a configuration file.

Known are, with `NAME` for the site:

- `train/` or `Training/`, and `val/`, `valid/`, `validation/`, `test/` or `Testing/` (the first of these), in any
  case, each with one folder a label (without a site's name);
- one folder a label;
- `NAME_data.csv`, or else `data/NAME/` with one folder a label;
  held back is `NAME_unseen.csv`, `NAME_unseen/`, `data/NAME_unseen/` or what `NAME_unseen_data.csv` lists;
- `NAME.csv` and `NAME_unseen.csv`, as `fedpi-coordinator split` writes them for a folder of images elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.config import DataConfig
from common.errors import ConfigError
from common.learning.folders import alike, as_stored
from common.plain_text import printable

TRAINING = ("train", "training")
HELD_BACK = ("val", "valid", "validation", "test", "testing")
"""Names of the folders of a set that is parted already, in the order in which they are looked for."""


@dataclass(frozen=True)
class Where:
    """What the command line says about images: a folder or CSV, and which site's part of it."""

    source: Path
    site: str | None = None
    images: Path | None = None
    """Folder that a CSV's file names start from, where that is not the CSV's own."""
    unseen: Path | None = None
    label_names: tuple[str, str] = ("no", "yes")


@dataclass(frozen=True)
class _Parts:
    """What was found: a CSV, a folder of images, what is held back; and whether the first two are for training."""

    labels: Path | None = None
    images: Path | None = None
    unseen: Path | None = None
    is_training: bool = True


def find(where: Where) -> DataConfig:
    """Find what to train on and what is held back. Raises ConfigError that says what was looked for."""
    return _config(where, _find(where))


def find_unseen(where: Where) -> DataConfig:
    """Find what to measure on: what is held back or, where nothing says that it is for training, all there is.

    Raises ConfigError that says what was looked for, also where there is a training part and no other.
    """
    parts = _find(where)
    if parts.is_training and not (where.unseen or parts.unseen):
        raise ConfigError(
            f"{where.source}: {parts.labels or parts.images} is for training, and nothing is held back beside it; name "
            "images that the model never saw by --unseen"
        )
    return _config(where, parts)


def _config(where: Where, parts: _Parts) -> DataConfig:
    images, held = where.images or parts.images, where.unseen or parts.unseen
    return DataConfig(
        images=str(images) if images else None,
        labels=str(parts.labels) if parts.labels else None,
        unseen=str(held) if held else None,
        label_names=where.label_names,
    )


def _find(where: Where) -> _Parts:
    try:
        return _find_parts(where)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; correct the path or its rights") from error


def _find_parts(where: Where) -> _Parts:
    source = as_stored(where.source)
    if source.is_file():
        return _Parts(labels=source, is_training=False)
    if not source.is_dir():
        raise ConfigError(f"{source}: there is no such folder or CSV; correct the path")
    if where.site is not None:
        return _find_site(source, where.site)
    folders = {alike(path.name): path for path in sorted(source.iterdir()) if path.is_dir()}
    if (train := _named(folders, TRAINING)) is not None:
        return _Parts(images=train, unseen=_named(folders, HELD_BACK))
    if not {alike(name) for name in where.label_names} <= folders.keys():
        there = ", ".join(repr(path.name) for path in folders.values()) or "none"
        raise ConfigError(
            f"{source}: it has neither train/ nor the folders {' and '.join(where.label_names)} of the labels; its "
            f"folders: {printable(there)[:300]}; name a site by --site, or the labels by --labels"
        )
    return _Parts(images=source, is_training=False)


def _find_site(source: Path, site: str) -> _Parts:
    listed = _first(source / f"{site}_data.csv", source / f"{site}.csv")
    below = _first(source / "data" / site, source / site)
    unseen = f"{site}_unseen"
    held = _first(
        source / f"{unseen}.csv",
        source / f"{unseen}_data.csv",
        source / unseen,
        source / "data" / unseen,
    )
    if listed is None and below is None:
        raise ConfigError(
            f"{source}: it has no {site}_data.csv, {site}.csv, data/{site} or {site}; correct --data or --site"
        )
    is_training = not site.endswith("_unseen")
    return _Parts(labels=listed, images=None if listed else below, unseen=held, is_training=is_training)


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.exists()), None)


def _named(folders: Mapping[str, Path], names: Sequence[str]) -> Path | None:
    return next((folders[name] for name in names if name in folders), None)
