"""Models beside each other on the unseen images of sites: every figure with its interval."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.learning.evaluation import Evaluation, evaluate, precision_recall_points, roc_points
from common.learning.intervals import Spread, spread
from common.learning.seam import Examples, Labels, Learner
from common.weights import Tensor

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
    """Draw `roc.png` and `precision_recall.png` into `folder`. Raises ConfigError or WorkError."""
    from common.learning.pictures import draw_curves

    kinds = (
        ("roc.png", roc_points, ("false positive rate", "true positive rate"), "ROC"),
        ("precision_recall.png", precision_recall_points, ("recall", "precision"), "precision and recall"),
    )
    paths = []
    for name, points, axes, title in kinds:
        curves = {f"{site}, {model}": points(*answer) for (site, model), answer in found.answers.items()}
        draw_curves(curves, folder / name, axes, title)
        paths.append(folder / name)
    return paths


def _row(site: str, model: str, probabilities: NDArray[np.float64], labels: Labels) -> Row:
    figures = evaluate(probabilities, labels)
    return Row(site=site, model=model, figures=figures, intervals=spread(figures, probabilities, labels))
