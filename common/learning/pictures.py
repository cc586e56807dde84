"""Pictures of a training and of an evaluation, by matplotlib without a display.

Every line bears its name beside its end or in the panel's empty corner; there are no legends to look up.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from common.errors import ConfigError, WorkError

Points: TypeAlias = Sequence[tuple[float, float]]
DPI = 130
COLOURS = ("#0b5394", "#c55a11", "#3a7d34", "#7b3f8c", "#8a6d00", "#555555")
"""Dark enough on white to be told apart, in print too."""
PALE = "0.58"
"""Grey of what something is compared with."""
PANELS = 3
"""Most panels in a row."""
LABEL_HEIGHT = 0.062
"""Of an axes' height: names beside line ends are at least so far apart."""


@dataclass(frozen=True)
class Line:
    """A line of a picture: its name, its points, and how it looks."""

    name: str
    points: Points
    colour: str
    width: float = 1.8
    style: str = "-"
    marker: str = ""
    is_level: bool = False
    """Whether it is drawn across the whole panel at the height of its one point."""


@dataclass(frozen=True)
class Panel:
    """A title, what the axes show, and the lines; later ones lie on top."""

    title: str
    axes: tuple[str, str]
    lines: Sequence[Line]


def draw_history(epochs: Sequence[Mapping[str, float]], path: Path, title: str, *, x: str = "epoch") -> None:
    """Draw accuracy and loss over the epochs, in training and, where it was measured, in validation.

    Raises ConfigError where matplotlib is missing, WorkError where the disk fails.
    """
    panels = []
    for metric, unit in (("accuracy", "share of images labelled right"), ("loss", "binary cross-entropy")):
        lines = []
        kinds = (("", "training"), ("validation_", "validation"), ("global_", "global model,\nunseen images"))
        for (prefix, label), colour in zip(kinds, COLOURS, strict=False):
            points = [(float(n), e[prefix + metric]) for n, e in enumerate(epochs, 1) if prefix + metric in e]
            lines.append(Line(label, points, colour, marker="." if len(points) < 40 else ""))
        panels.append(Panel(metric, (x, unit), lines))
    draw_courses(panels, path, title)


def draw_courses(panels: Sequence[Panel], path: Path, title: str, *, is_shared: bool = False) -> None:
    """Draw lines over whole numbers, such as rounds, each named beside its end.

    With `is_shared` all panels have one scale. Raises as `draw_history` does.
    """
    plt = pyplot()
    from matplotlib.ticker import MaxNLocator

    rows = 1 if len(panels) < PANELS else len(panels)  # beside each other, or below where there are many
    columns = len(panels) // rows
    shape = {"figsize": (5.0 * columns if rows == 1 else 7.5, 3.9 if rows == 1 else 2.7 * rows), "dpi": DPI}
    figure, sides = plt.subplots(rows, columns, layout="constrained", squeeze=False, sharey=is_shared, **shape)
    for axes, panel in zip(sides.flat, panels, strict=True):
        _plot(axes, panel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(y=0.08)
    for axes, panel in zip(sides.flat, panels, strict=True):  # once the scale is known
        _name_ends(axes, [line for line in panel.lines if line.points])
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def draw_curves(panels: Sequence[Panel], path: Path, title: str, *, corner: str = "lower right") -> None:
    """Draw panels of curves within the unit square, named in their empty `corner`. Raises as `draw_history` does."""
    plt = pyplot()
    columns = min(len(panels), PANELS)
    rows = -(-len(panels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.9 * columns + 0.4, 3.9 * rows + 0.4), dpi=DPI, layout="constrained", squeeze=False
    )
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid.flat, panels, strict=False):
        _plot(axes, panel)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        _name_in_corner(axes, [line for line in panel.lines if line.points], corner)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def pyplot() -> Any:
    """Return `matplotlib.pyplot`, which draws without a display. Raises ConfigError where it is missing."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ConfigError("drawing needs matplotlib: install fedpi[tools]") from error
    mpl.use("Agg")
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its font cache, at the first use
    from matplotlib import pyplot as plt

    return plt


def save(figure: Any, path: Path) -> None:
    """Write a figure to a PNG file and let it go. Raises WorkError where the disk fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise WorkError(f"{path}: cannot write the picture: {error.strerror or error}") from error
    finally:
        pyplot().close(figure)


def _plot(axes: Any, panel: Panel) -> None:
    for line in panel.lines:
        if line.is_level and line.points:
            axes.axhline(line.points[0][1], color=line.colour, lw=line.width, ls=line.style)
        elif line.points:
            xs, ys = zip(*line.points, strict=True)
            axes.plot(xs, ys, color=line.colour, lw=line.width, ls=line.style, marker=line.marker)
    axes.set(xlabel=panel.axes[0], ylabel=panel.axes[1])
    axes.set_title(panel.title, fontsize=10)
    axes.grid(alpha=0.2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _name_ends(axes: Any, lines: Sequence[Line]) -> None:
    """Write each line's name to the right of its end, in its colour, and none over another."""
    low, high = axes.get_ylim()
    last = sorted(lines, key=lambda line: line.points[-1][1])
    heights = [(line.points[-1][1] - low) / (high - low) for line in last]
    needed = [LABEL_HEIGHT * (1 + line.name.count("\n")) for line in last]
    apart = [(one + other) / 2 for one, other in pairwise(needed)]
    for place, gap in enumerate(apart):
        heights[place + 1] = max(heights[place + 1], heights[place] + gap)
    if heights:
        heights[-1] = min(heights[-1], 1.0)
    for place, gap in reversed(list(enumerate(apart))):
        heights[place] = min(heights[place], heights[place + 1] - gap)
    for line, height in zip(last, heights, strict=True):
        axes.text(1.02, height, line.name, transform=axes.transAxes, color=line.colour, va="center", fontsize=8.5)


def _name_in_corner(axes: Any, lines: Sequence[Line], corner: str) -> None:
    """Write the names below each other, the topmost line's first, in the corner that the curves leave empty."""
    side = "right" if "right" in corner else "left"
    x = 0.97 if side == "right" else 0.03
    for place, line in enumerate(lines):
        y = 0.05 + LABEL_HEIGHT * place
        axes.text(x, y, line.name, transform=axes.transAxes, color=line.colour, ha=side, fontsize=9)
