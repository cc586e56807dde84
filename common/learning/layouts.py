"""Finding a site's images in a folder as people have them, without a configuration file.

Known are, with `NAME` for the site:

- `train/` and `val/`, each with one folder a label (without a site's name);
- one folder a label;
- `NAME_data.csv`, or else `data/NAME/` with one folder a label;
  held back is `NAME_unseen.csv`, `NAME_unseen/`, `data/NAME_unseen/` or what `NAME_unseen_data.csv` lists;
- `NAME.csv` and `NAME_unseen.csv`, as `fedpi-coordinator split` writes them for a folder of images elsewhere.
"""

from dataclasses import dataclass
from pathlib import Path

from common.config import DataConfig
from common.errors import ConfigError


@dataclass(frozen=True)
class Where:
    """What the command line says about images: a folder or CSV, and which site's part of it."""

    source: Path
    site: str | None = None
    images: Path | None = None
    """Folder that a CSV's file names start from, where that is not the CSV's own."""
    unseen: Path | None = None
    label_names: tuple[str, str] = ("no", "yes")


def find(where: Where) -> DataConfig:
    """Find what to train on and what is held back. Raises ConfigError that says what was looked for."""
    labels, images, unseen = _find(where)
    held = where.unseen or unseen
    return DataConfig(
        images=str(where.images or images) if where.images or images else None,
        labels=str(labels) if labels else None,
        unseen=str(held) if held else None,
        label_names=where.label_names,
    )


def _find(where: Where) -> tuple[Path | None, Path | None, Path | None]:
    """The CSV, the folder of images, and what is held back."""
    source = where.source
    if source.is_file():
        return source, None, None
    if not source.is_dir():
        raise ConfigError(f"{source}: there is no such folder or CSV; correct the path")
    if where.site is not None:
        return _find_site(source, where.site)
    if (source / "train").is_dir():
        return None, source / "train", _first(source / "val")
    folders = {path.name.casefold() for path in source.iterdir() if path.is_dir()}
    if not {name.casefold() for name in where.label_names} <= folders:
        raise ConfigError(
            f"{source}: it has neither train/ nor the folders {' and '.join(where.label_names)} of the labels; "
            "name a site by --site, or the labels by --labels"
        )
    return None, source, None


def _find_site(source: Path, site: str) -> tuple[Path | None, Path | None, Path | None]:
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
    return (listed, source, held) if listed else (None, below, held)


def _first(*paths: Path) -> Path | None:
    return next((path for path in paths if path.exists()), None)
