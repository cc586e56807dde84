"""Synthetic slices for a machine without images: drawn by formulas, of no person, and named so.

They resemble axial slices of a head: scalp, skull, a brain with folds and ventricles, in contrasts
mixed from five sequences, under a bias field and Rician noise (the modulus of a signal with complex
Gaussian noise, which is what a scanner measures). A slice labelled yes has a lesion: an irregular
patch, bright, dark or a ring, often with a swollen seam, that pushes its surroundings aside. Both
labels have the same distractors (vessels, patches beside the ventricles, old cavities, unequal
ventricles), so that neither brightness nor asymmetry alone tells them apart.

Measured on 2026-12-01: logistic regression on 32 x 32 pixels, trained on 300 slices and tested on
300 others, reaches an AUC of .49; docs/learning.md has what a small CNN reaches. Of 480 slices, 478
and 480 are no near copy of another one (seeds 0 and 1).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from common.errors import WorkError

_Plane: TypeAlias = NDArray[np.float64]
_Pair: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class _Head:
    """Where each pixel lies: `x` to the right and `y` to the back, with the skin at `radius` 1."""

    x: _Plane
    y: _Plane
    radius: _Plane
    brain_edge: float


@dataclass(frozen=True)
class _Contrast:
    """How bright each tissue is, from 0 to 1."""

    fluid: float
    grey: float
    white: float
    skin: float
    lesion: float


_SEQUENCES = np.array(
    [
        (0.12, 0.38, 0.50, 0.80, 0.92),  # like T1 with a contrast agent
        (0.68, 0.48, 0.36, 0.60, 0.95),  # like T2
        (0.12, 0.46, 0.38, 0.70, 0.95),  # like FLAIR
        (0.55, 0.62, 0.50, 0.70, 0.75),  # like proton density
        (0.10, 0.30, 0.55, 0.85, 0.28),  # like T1, where lesions are dark
    ]
)
"""How bright fluid, grey matter, white matter, skin and lesions are."""


@dataclass(frozen=True)
class _Lesion:
    """Where it lies, and its half width, in units of the head."""

    x: float
    y: float
    size: float


def draw_slices(folder: Path, count_per_label: int, seed: int, size: int = 160) -> None:
    """Write `count_per_label` PNG files of `size` pixels to each of `folder/no` and `folder/yes`.

    The same seed gives the same slices, however many are drawn. Raises WorkError where it cannot write.
    """
    note = PngImagePlugin.PngInfo()
    note.add_text("Description", "Synthetic slice, drawn by fedpi: no person's image")
    for label in ("no", "yes"):
        for index in range(count_per_label):
            rng = np.random.default_rng((seed, index, label == "yes"))
            pixels = draw_slice(rng, size, has_lesion=label == "yes")
            path = folder / label / f"synthetic_{label}_{index:03d}.png"
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path, pnginfo=note)
            except OSError as error:
                raise WorkError(f"{path}: cannot write: {error.strerror}") from error


def draw_slice(rng: Generator, size: int, *, has_lesion: bool) -> NDArray[np.uint8]:
    """Draw one grey slice `[size, size]`."""
    contrast = _contrast(rng)
    head = _head(rng, size)
    lesion = _place(rng) if has_lesion else None
    inside = _push_aside(head, lesion) if lesion else head
    brain = _ventricles(rng, inside, contrast, _tissue(rng, inside, contrast))
    brain = _distractors(rng, inside, contrast, brain)
    if lesion:
        brain = _paint(rng, head, contrast, lesion, brain)
    return _scan(rng, _wrap(rng, head, contrast, brain))


def _contrast(rng: Generator) -> _Contrast:
    """Between the sequences, mostly near one of them, with a lesion that may be faint."""
    mixed = rng.dirichlet([0.35] * len(_SEQUENCES)) @ _SEQUENCES
    drawn = np.clip(mixed + rng.normal(0, 0.05, 5), 0.05, 1.0)
    return _Contrast(*(float(value) for value in drawn))


def _head(rng: Generator, size: int) -> _Head:
    """A head of random place, turn, width and outline."""
    row, column = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
    turn = rng.normal(0, 0.18)
    half_height, aspect = rng.uniform(0.74, 0.95), rng.uniform(0.72, 0.92)
    across, down = column - rng.uniform(-0.04, 0.04), row - rng.uniform(-0.03, 0.03)
    x = (across * np.cos(turn) + down * np.sin(turn)) / (half_height * aspect)
    y = (down * np.cos(turn) - across * np.sin(turn)) / half_height
    angle = np.arctan2(y, x)
    outline = 1 + sum(rng.normal(0, 0.05 / k) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in (1, 2, 3, 4))
    return _Head(x, y, np.hypot(x, y) / outline, rng.uniform(0.79, 0.91))


def _tissue(rng: Generator, head: _Head, contrast: _Contrast) -> _Plane:
    """White matter, and towards the edge grey folds with fluid between them."""
    size = len(head.x)
    folds = 0.6 * _folds(rng, head) + 0.6 * _noise(rng, size, int(rng.integers(8, 18)))
    outer = _step(head.radius, rng.uniform(0.35, 0.5), 0.12)
    brain = np.full_like(head.x, contrast.white) + 0.07 * _noise(rng, size, 6)
    brain = _mix(brain, contrast.grey, 0.9 * outer * np.exp(-((folds / 0.6) ** 2)))
    brain = _mix(brain, contrast.fluid, rng.uniform(0.5, 1) * outer * np.exp(-((folds / 0.16) ** 2)))
    for side in (-1, 1):
        nucleus = _ellipse(head, (side * rng.uniform(0.2, 0.27), rng.uniform(-0.08, 0.08)), (0.09, 0.2))
        brain = _mix(brain, contrast.grey, 0.8 * nucleus)
    fissure = np.exp(-(((head.x - 0.02 * _noise(rng, size, 4)) / 0.018) ** 2)) * _step(abs(head.y), 0.3, 0.04)
    brain = _mix(brain, contrast.fluid, 0.85 * fissure)
    return _mix(brain, contrast.fluid, _step(head.radius, head.brain_edge - rng.uniform(0.01, 0.07), 0.012))


def _ventricles(rng: Generator, head: _Head, contrast: _Contrast, brain: _Plane) -> _Plane:
    """A pair of curved chambers, seldom of one size, behind them their horns, between them a slit."""
    width, length, bend = rng.uniform(0.015, 0.12), rng.uniform(0.15, 0.45), rng.uniform(0, 1.4)
    centre, gap, horns = rng.uniform(-0.2, 0.2), rng.uniform(0.04, 0.1), rng.random() < 0.6
    for side in (-1, 1):
        own = width * rng.uniform(0.6, 1.5)
        middle = gap + own + bend * (head.y - centre) ** 2
        across, along = (side * head.x - middle) / own, (head.y - centre) / (length * rng.uniform(0.8, 1.2))
        brain = _mix(brain, contrast.fluid, _step(1 - across**2 - along**2, 0, 0.15))
        if horns:
            place = (side * rng.uniform(0.24, 0.34), rng.uniform(0.28, 0.42))
            brain = _mix(brain, contrast.fluid, _ellipse(head, place, (rng.uniform(0.03, 0.09), 0.12)))
            brain = _mix(brain, rng.uniform(0.4, 0.8), 0.9 * _ellipse(head, place, (0.035, 0.045)))
    slit = _ellipse(head, (0, rng.uniform(0, 0.15)), (rng.uniform(0.01, 0.03), 0.1))
    return _mix(brain, contrast.fluid, slit)


def _distractors(rng: Generator, head: _Head, contrast: _Contrast, brain: _Plane) -> _Plane:
    """What both labels have: vessels, patches beside the ventricles on both sides, old cavities."""
    for _ in range(rng.integers(2, 9)):
        place, width = _somewhere(rng, 0.25, 0.75), rng.uniform(0.01, 0.025)
        brain = _mix(brain, rng.uniform(0.7, 1), _ellipse(head, place, (width, width * rng.uniform(1, 3))))
    if rng.random() < 0.3:
        x, y, width = rng.uniform(0.12, 0.35), rng.uniform(-0.35, 0.4), rng.uniform(0.05, 0.11)
        for side in (-1, 1):
            patch = _ellipse(head, (side * x, y), (width, width * rng.uniform(0.7, 1.5)), 0.5)
            brain = _mix(brain, contrast.lesion, rng.uniform(0.2, 0.5) * patch)
    if rng.random() < 0.4:
        place, width = _somewhere(rng, 0.3, 0.65), rng.uniform(0.04, 0.11)
        brain = _mix(brain, contrast.fluid, _ellipse(head, place, (width, width)))
    return brain


def _place(rng: Generator) -> _Lesion:
    size = float(rng.uniform(0.14, 0.34))
    return _Lesion(*_somewhere(rng, 0.15, 0.78 - size), size)


def _somewhere(rng: Generator, low: float, high: float) -> _Pair:
    """A place between these distances from the centre of the head."""
    far, angle = rng.uniform(low, high), rng.uniform(0, 2 * np.pi)
    return float(far * np.cos(angle)), float(far * np.sin(angle))


def _push_aside(head: _Head, lesion: _Lesion) -> _Head:
    """The head as it would be without the lesion: tissue near it lies further out than it was."""
    x, y = head.x - lesion.x, head.y - lesion.y
    pull = 1 - 0.45 * np.exp(-(x**2 + y**2) / (2 * (1.3 * lesion.size) ** 2))
    return replace(head, x=lesion.x + x * pull, y=lesion.y + y * pull)


def _paint(rng: Generator, head: _Head, contrast: _Contrast, lesion: _Lesion, brain: _Plane) -> _Plane:
    """An irregular patch with texture, often with a swollen seam, sometimes with a dead core."""
    size = len(head.x)
    x, y = head.x - lesion.x, head.y - lesion.y
    angle = np.arctan2(y, x)
    outline = 1 + sum(rng.normal(0, 0.3 / k) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in (2, 3, 4, 5))
    far = np.hypot(x, y) / (lesion.size * np.clip(outline, 0.4, 2)) + 0.12 * _noise(rng, size, 20)
    strength = rng.uniform(0.75, 1)
    if rng.random() < 0.6:
        seam = (contrast.fluid + contrast.lesion) / 2
        brain = _mix(brain, seam, 0.5 * _step(-far - 0.25 * _noise(rng, size, 10), -rng.uniform(1.3, 2), 0.2))
    brain = _mix(brain, contrast.lesion + 0.08 * _noise(rng, size, 24), strength * _step(-far, -1, 0.08))
    if rng.random() < 0.4:
        brain = _mix(brain, contrast.fluid, strength * _step(-far, -rng.uniform(0.4, 0.75), 0.06))
    return brain


def _wrap(rng: Generator, head: _Head, contrast: _Contrast, brain: _Plane) -> _Plane:
    """Put the brain into its fluid, skull and scalp."""
    skull, scalp = head.brain_edge + rng.uniform(0.005, 0.03), rng.uniform(0.92, 0.97)
    whole = _mix(brain, rng.uniform(0.03, 0.12), _step(head.radius, skull, 0.008))
    whole = _mix(whole, contrast.skin + 0.1 * _noise(rng, len(head.x), 12), _step(head.radius, scalp, 0.012))
    return whole * _step(-head.radius, -1, 0.008)


def _scan(rng: Generator, whole: _Plane) -> NDArray[np.uint8]:
    """What a scanner with an uneven coil and noise makes of it, windowed to 8 bits."""
    size = len(whole)
    signal = np.clip(whole, 0, None) * np.exp(rng.uniform(0.03, 0.25) * _noise(rng, size, 3))
    sigma = rng.uniform(0.01, 0.065)
    real, imaginary = rng.normal(0, sigma, (2, size, size))
    measured = np.hypot(signal + real, imaginary) ** rng.uniform(0.7, 1.4)
    window = np.quantile(measured, rng.uniform(0.97, 0.999))
    scaled: NDArray[np.uint8] = np.clip(measured / window * 255, 0, 255).astype(np.uint8)
    return scaled


def _noise(rng: Generator, size: int, cells: int) -> _Plane:
    """Smooth noise of unit variance at its `cells` x `cells` grid points."""
    grid = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC), np.float64)


def _folds(rng: Generator, head: _Head) -> _Plane:
    """Noise that runs outwards, as the folds of the cortex do."""
    grid = rng.standard_normal((5, int(rng.integers(18, 40)))).astype(np.float32)
    closed = Image.fromarray(np.hstack([grid, grid[:, :1]]))
    wide = np.asarray(closed.resize((512, 64), Image.Resampling.BICUBIC))
    along = np.clip(head.radius * 63, 0, 63).astype(int)
    around = ((np.arctan2(head.y, head.x) / (2 * np.pi) + 0.5) * 511).astype(int)
    folds: _Plane = wide[along, around].astype(np.float64)
    return folds


def _ellipse(head: _Head, centre: _Pair, half: _Pair, soft: float = 0.15) -> _Plane:
    """1 inside an ellipse, 0 outside, with a soft edge."""
    far = ((head.x - centre[0]) / half[0]) ** 2 + ((head.y - centre[1]) / half[1]) ** 2
    return _step(1 - far, 0, soft)


def _step(value: _Plane, edge: float, soft: float) -> _Plane:
    """0 below `edge`, 1 above it, with a soft step between."""
    stepped: _Plane = 1 / (1 + np.exp(-np.clip((value - edge) / soft * 2, -30, 30)))
    return stepped


def _mix(below: _Plane, above: _Plane | float, share: _Plane) -> _Plane:
    return below + (above - below) * share
