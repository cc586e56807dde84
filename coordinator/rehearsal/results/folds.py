"""Images in folds, and a fold's training images at sites: by the rules of `coordinator.dataset.split`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.learning.course import select
from common.learning.decoding import decode_image, read_image_file
from common.learning.folders import Labelled, find_labelled
from common.learning.seam import Examples, Images, Site
from coordinator.dataset.partition import Skew
from coordinator.dataset.split import Group, SplitOptions, deal, find_groups

ALPHA = 0.5
"""Of the Dirichlet distribution by which skewed sites differ in their labels."""
LABEL_NAMES = SplitOptions().label_names


@dataclass(frozen=True)
class Pool:
    """All images of a folder, decoded once, and which of them are near copies of each other."""

    examples: Examples
    groups: Sequence[Group]

    def select(self, groups: Sequence[Group]) -> Examples:
        """Take the images of `groups`, in the pool's order."""
        return select(self.examples, self.places(groups))

    def places(self, groups: Sequence[Group]) -> NDArray[np.int64]:
        """Say where the images of `groups` stand in the pool."""
        wanted = {item.name for group in groups for item in group.items}
        return np.flatnonzero([name in wanted for name in self.examples.names])


@dataclass(frozen=True)
class Fold:
    """What is trained on, and what is tested on and nothing else."""

    number: int
    train: Sequence[Group]
    test: Sequence[Group]


def gather(images: Path, image_size: int) -> Pool:
    """Read a folder with one folder a label; what is no image is left out. Raises DataError where nothing is left."""
    groups, _, _ = find_groups(find_labelled(images, LABEL_NAMES).items)
    items = sorted((item for group in groups for item in group.items), key=lambda item: item.name)
    if not items:
        raise DataError(f"{images}: no usable image; add JPEG or PNG files")
    pixels = np.stack([_decode(item, image_size) for item in items])
    labels = np.array([item.label for item in items], np.int64)
    return Pool(Examples(pixels, labels, tuple(item.name for item in items)), groups)


def _decode(item: Labelled, image_size: int) -> Images:
    try:
        return decode_image(read_image_file(item.path), image_size)
    except DataError as error:
        raise DataError(f"{item.path}: {error}") from error


def make_folds(pool: Pool, count: int, seed: int, *, keep_twins: bool) -> list[Fold]:
    """Deal all images out to `count` folds, so that each is tested once; near copies stay together if `keep_twins`."""
    names = [f"fold-{number}" for number in range(count)]
    parts = deal(pool.groups, dict.fromkeys(names, 1 / count), SplitOptions(seed=seed, keep_twins=keep_twins))
    return [
        Fold(number, [group for other in names if other != name for group in parts[other]], parts[name])
        for number, name in enumerate(names)
    ]


def make_sites(pool: Pool, fold: Fold, count: int, skew: Skew, seed: int) -> Mapping[str, Site]:
    """Deal a fold's training images out to `count` sites that hold nothing back; near copies stay at one site."""
    names = tuple(f"site-{number:02d}" for number in range(count))
    options = SplitOptions(seed=seed + fold.number, sites=names, skew=skew, alpha=ALPHA)
    parts = deal(fold.train, dict.fromkeys(names, 1 / count), options)
    nothing = pool.select(())
    return {name: Site(pool.select(groups), nothing) for name, groups in parts.items() if groups}
