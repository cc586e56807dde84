"""Finding near copies: one slice resized, mirrored, turned, re-encoded, with other contrast or another frame.

An image is hashed in several views (whole, without a margin or a corner, cropped to what is
brighter than its background), each in its eight orientations, by ImageHash: a DCT hash and a
gradient hash of 256 bits each. The distance of two images is the smallest share of differing bits
over all pairs of views and orientations; joining is transitive.

Measured on 2026-11-22 with the 253 slices of brain253: every threshold from .055 to .189 finds the
same 199 groups: 38 of more than one file, at most 5 files, never with both labels. All were looked
at; a search over shifts and scales without hashes found no twin in two groups. Above .189 follow
one head in two sequences, from .205 on different heads, at .25 a group of 67 files.

One changed copy each of the 199 slices lies within .18 for all that were resized, stretched,
mirrored, turned by 90 or 2 degrees, blurred, noisy, re-encoded, darkened, brightened, cropped by up
to 3 % or evenly by 8 %; for 99 % with an equalised histogram or 30 % padding, 97 % cropped
by up to 6 % a side, 94 % turned by 5 degrees, 67 % cropped by up to 10 % a side. Not found: turns by 10
degrees and inverted grey.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

THRESHOLD = 0.18
"""Images whose distance is at most this are near copies."""

Fingerprint: TypeAlias = NDArray[np.float32]
"""`[views, 8 orientations, 512 bits]`, each bit -1 or 1, so that a product of two counts equal bits."""
Tell: TypeAlias = Callable[[str], None]
"""Called often, with a line that says how far the work is."""
Frame: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""

_HASH_SIDE = 16
_VIEW_SIDE = 64
_MARGINS = (0.0, 0.03, 0.06, 0.10)
_CORNER = 0.05
_LEVELS = (20, 40, 60, 90)
_CELLS = 2**24
"""Comparisons of views held in memory at once: 64 MiB of float32."""


def fingerprint(image: "Image.Image") -> Fingerprint:
    """Hash the views of an image in all orientations."""
    import imagehash

    hashes = []
    for view in _views(image):
        for turned in _orientations(view):
            found = (imagehash.phash(turned, _HASH_SIDE), imagehash.dhash(turned, _HASH_SIDE))
            hashes.append(np.concatenate([part.hash.ravel() for part in found]))
    bits = np.array(hashes, np.float32).reshape(-1, 8, 2 * _HASH_SIDE**2)
    return bits * 2 - 1


def distances(fingerprints: Sequence[Fingerprint], tell: Tell | None = None) -> NDArray[np.float32]:
    """The distances `[n, n]` of all pairs, from 0 (the same) to about .4 (nothing in common)."""
    bits = np.stack(fingerprints)
    count, views, orientations, length = bits.shape
    upright = np.ascontiguousarray(bits[:, :, 0].reshape(count * views, length).T)
    found = np.zeros((count, count), np.float32)
    step = max(1, _CELLS // (views * orientations * count * views))
    for start in range(0, count, step):
        if tell is not None:
            tell(f"{start} of {count} images compared with the others")
        block = bits[start : start + step]
        agreement = block.reshape(-1, length) @ upright[:, start * views :]
        best = agreement.reshape(len(block), views * orientations, count - start, views).max(axis=(1, 3))
        found[start : start + step, start:] = (1 - best / length) / 2
    upper: NDArray[np.float32] = np.triu(found, 1)
    return upper + upper.T


def join(found: NDArray[np.float32], threshold: float = THRESHOLD) -> list[list[int]]:
    """Group the indices that distances up to `threshold` connect; each group and the list in ascending order."""
    root = list(range(len(found)))
    for pair in np.argwhere(np.triu(found <= threshold, 1)):
        low, high = sorted((_find(root, int(pair[0])), _find(root, int(pair[1]))))
        root[high] = low
    groups: dict[int, list[int]] = {}
    for index in range(len(root)):
        groups.setdefault(_find(root, index), []).append(index)
    return list(groups.values())


def _find(root: list[int], index: int) -> int:
    while root[index] != index:
        index = root[index]
    return index


def _views(image: "Image.Image") -> list["Image.Image"]:
    """Grey squares of the same content in different frames."""
    from PIL import Image

    grey = image.convert("L")
    scale = 256 / max(grey.size)
    if scale < 1:  # once for all views: that halves the time
        size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
        grey = grey.resize(size, Image.Resampling.BOX)
    cuts = [(share, share, share, share) for share in _MARGINS]
    cuts += [(x, y, _CORNER - x, _CORNER - y) for x in (0, _CORNER) for y in (0, _CORNER)]
    frames = [_without(grey, cut) for cut in cuts] + [_foreground(grey, level) for level in _LEVELS]
    square = (_VIEW_SIDE, _VIEW_SIDE)
    return [grey.resize(square, Image.Resampling.BILINEAR, box=frame) for frame in frames]


def _orientations(view: "Image.Image") -> list["Image.Image"]:
    """The view itself, then its seven mirrorings and quarter turns."""
    from PIL import Image

    return [view, *(view.transpose(way) for way in Image.Transpose)]


def _without(image: "Image.Image", cut: tuple[float, float, float, float]) -> Frame:
    """The frame without these shares of width and height: left, top, right, bottom."""
    left, top, right, bottom = cut
    width, height = image.size
    return int(width * left), int(height * top), width - int(width * right), height - int(height * bottom)


def _foreground(image: "Image.Image", level: int) -> Frame:
    """The frame of the rows and columns of which at least a tenth is brighter than `level` of 255."""
    from PIL import Image, ImageFilter, ImageOps

    side = 96
    small = image.resize((side, side), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(1))
    bright = np.asarray(ImageOps.autocontrast(small, cutoff=1)) > level
    columns, rows = (np.flatnonzero(bright.mean(axis=axis) > 0.1) for axis in (0, 1))
    if min(len(columns), len(rows)) < side // 4:
        return 0, 0, image.width, image.height
    left, right = (int(edge) * image.width // side for edge in (columns[0], columns[-1] + 1))
    top, bottom = (int(edge) * image.height // side for edge in (rows[0], rows[-1] + 1))
    return left, top, max(right, left + 1), max(bottom, top + 1)
