"""Models beside each other on the unseen images of sites: every figure with its interval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.learning.evaluation import Evaluation, evaluate, precision_recall_points, roc_points
from common.learning.intervals import Spread, spread
from common.learning.seam import Examples, Labels, Learner
from common.weights import Tensor

if TYPE_CHECKING:
    from common.learning.pictures import Line

Points: TypeAlias = Sequence[tuple[float, float]]
TOGETHER = "all"
"""Where the images of several sites are taken together."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one site's images."""

    site: str
    model: str
    figures: Evaluation
    intervals: Spread


@dataclass(frozen=True)
class Comparison:
    """A row for each site and model, and the probabilities and labels that they were measured by."""

    rows: tuple[Row, ...]
    answers: Mapping[tuple[str, str], tuple[NDArray[np.float64], Labels]]
    """By site and model."""


def compare(learner: Learner, models: Mapping[str, list[Tensor]], sites: Mapping[str, Examples]) -> Comparison:
    """Measure the weights of every model on every site and, where there are several, on all of them together.

    Raises WorkError where a model gives probabilities that are not finite.
    """
    answers: dict[tuple[str, str], tuple[NDArray[np.float64], Labels]] = {}
    for model, weights in models.items():
        for site, examples in sites.items():
            answers[site, model] = learner.predict(weights, examples.images), examples.labels
        if len(sites) > 1:
            pooled = [answers[site, model] for site in sites]
            answers[TOGETHER, model] = np.concatenate([p for p, _ in pooled]), np.concatenate([y for _, y in pooled])
    names = [*sites, TOGETHER] if len(sites) > 1 else list(sites)
    rows = [_row(site, model, *answers[site, model]) for site in names for model in models]
    return Comparison(tuple(rows), answers)


def draw(found: Comparison, folder: Path) -> list[Path]:
    """Draw `roc.png` and `precision_recall.png` into `folder`, a panel for each site.

    Raises ConfigError or WorkError.
    """
    from common.learning.pictures import Panel, draw_curves

    sites = list(dict.fromkeys(row.site for row in found.rows))
    roc, recall = folder / "roc.png", folder / "precision_recall.png"
    axes = "false positive rate", "true positive rate"
    panels = [Panel(_titled(found, site), axes, _lines(found, site, roc_points, "AUC")) for site in sites]
    draw_curves(panels, roc, "ROC on unseen images")
    axes = "recall", "precision"
    panels = [Panel(_titled(found, site), axes, _lines(found, site, precision_recall_points)) for site in sites]
    draw_curves(panels, recall, "Precision and recall on unseen images", corner="lower left")
    return [roc, recall]


def _titled(found: Comparison, site: str) -> str:
    count = next(row.figures.count for row in found.rows if row.site == site)
    return f"{'all sites' if site == TOGETHER else site}: {count} images"


def _lines(found: Comparison, site: str, points: Callable[..., Points], figure: str = "") -> "list[Line]":
    """The models' curves on a site's images: the one before wide and pale below, so that neither hides the other.

    With a `figure`, AUC, each curve's name tells it.
    """
    from common.learning.pictures import COLOURS, PALE, Line

    rows = [row for row in found.rows if row.site == site]
    lines = []
    for row in rows:
        is_last = row is rows[-1]
        auc = f": {figure} {row.figures.auc:.3f}" if figure and row.figures.auc is not None else ""
        curve = points(*found.answers[site, row.model])
        lines.append(Line(row.model + auc, curve, COLOURS[0] if is_last else PALE, 1.6 if is_last else 3.4))
    return lines


def _row(site: str, model: str, probabilities: NDArray[np.float64], labels: Labels) -> Row:
    figures = evaluate(probabilities, labels)
    return Row(site=site, model=model, figures=figures, intervals=spread(figures, probabilities, labels))
