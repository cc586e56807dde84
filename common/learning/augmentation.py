"""What a training does to its images: drawn in numpy from the plan's seed, never a part of the model."""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.config import Config

Floats = NDArray[np.float32]


class Augmentation(Config, frozen=True):
    """How far an image may be changed, at random, each time it is trained on."""

    flips: Literal["none", "horizontal", "both"] = "horizontal"
    rotation: Annotated[float, msgspec.Meta(ge=0, le=180)] = 15.0
    """Degrees either way."""
    zoom: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    """A factor from 1 - zoom to 1 + zoom."""
    contrast: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.2
    """A factor from 1 - contrast to 1 + contrast, about the image's mean."""


@dataclass(frozen=True)
class Changes:
    """One change an image: `transforms` `[n, 8]` take output to input pixels, `gains` `[n]` scale the contrast."""

    transforms: Floats
    gains: Floats


def draw(augmentation: Augmentation, rng: np.random.Generator, count: int, image_size: int) -> Changes:
    """Draw changes for `count` square images of `image_size` pixels.

    A transform (a0, a1, a2, b0, b1, b2, 0, 0) reads output pixel (x, y) at input
    (a0 x + a1 y + a2, b0 x + b1 y + b2): a rotation, zoom and flip about the centre.
    """
    angle = np.deg2rad(rng.uniform(-1, 1, count) * augmentation.rotation)
    scale = 1 / (1 + rng.uniform(-1, 1, count) * augmentation.zoom)
    flip = 1 - 2 * rng.integers(0, 2, (2, count))
    gain = 1 + rng.uniform(-1, 1, count) * augmentation.contrast
    flip_x = flip[0] if augmentation.flips != "none" else 1
    flip_y = flip[1] if augmentation.flips == "both" else 1

    a0, a1 = scale * np.cos(angle) * flip_x, -scale * np.sin(angle) * flip_y
    b0, b1 = scale * np.sin(angle) * flip_x, scale * np.cos(angle) * flip_y
    centre = (image_size - 1) / 2
    zero = np.zeros(count)
    rows = (a0, a1, centre * (1 - a0 - a1), b0, b1, centre * (1 - b0 - b1), zero, zero)
    return Changes(np.stack(rows, axis=1).astype(np.float32), gain.astype(np.float32))
