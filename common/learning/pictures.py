"""Pictures of a training and of an evaluation, by matplotlib without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from common.errors import ConfigError, WorkError

Curve: TypeAlias = Sequence[tuple[float, float]]
DPI = 130


def draw_history(epochs: Sequence[Mapping[str, float]], path: Path, title: str, *, x: str = "epoch") -> None:
    """Draw accuracy and loss over the epochs, in training and, where it was measured, in validation.

    Raises ConfigError where matplotlib is missing, WorkError where the disk fails.
    """
    plt = _pyplot()
    from matplotlib.ticker import MaxNLocator

    figure, sides = plt.subplots(1, 2, figsize=(8.0, 3.8), dpi=DPI, layout="constrained")
    for axes, metric, unit in zip(sides, ("accuracy", "loss"), ("share right", "binary cross-entropy"), strict=True):
        for prefix, label in (("", "training"), ("validation_", "validation"), ("global_", "global model, unseen")):
            points = [(n, e[prefix + metric]) for n, e in enumerate(epochs, 1) if prefix + metric in e]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=label)
        axes.set(xlabel=x, ylabel=unit, title=metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        if axes.has_data():
            axes.legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    _save(plt, figure, path)


def draw_curves(curves: Mapping[str, Curve], path: Path, axes_names: tuple[str, str], title: str) -> None:
    """Draw named curves within the unit square. Raises as `draw_history` does."""
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(5.4, 5.0), dpi=DPI, layout="constrained")
    for name, points in curves.items():
        if points:
            axes.plot(*zip(*points, strict=True), lw=1.8, label=name)
    axes.set(xlabel=axes_names[0], ylabel=axes_names[1], xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.25)
    if axes.has_data():
        axes.legend(frameon=False, fontsize=8)
    _save(plt, figure, path)


def _pyplot() -> Any:
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise ConfigError("drawing needs matplotlib: install fedpi[tools], or draw nothing by --no-plot") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


def _save(plt: Any, figure: Any, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise WorkError(f"{path}: cannot write the picture: {error.strerror or error}") from error
    finally:
        plt.close(figure)
