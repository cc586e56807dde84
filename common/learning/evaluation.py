"""How good a model's probabilities are against the labels (by scikit-learn, loaded where needed)."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.errors import WorkError
from common.learning.seam import Labels

THRESHOLD = 0.5
"""A probability from here on is the positive label, everywhere."""
CLIP = 1e-7
"""The loss takes probabilities from CLIP to 1 - CLIP, as Keras does, so that one wrong 0 does not make it infinite."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """Figures over `count` images; None where the labels do not define one (no images, or one class only)."""

    count: int
    loss: float | None
    """Mean binary cross-entropy in nats."""
    accuracy: float | None
    auc: float | None
    """Area under the ROC curve."""
    sensitivity: float | None
    """Share of the positives that were found."""
    specificity: float | None
    """Share of the negatives that were left alone."""
    f1: float | None
    """2 TP / (2 TP + FP + FN)."""
    true_negatives: int
    false_positives: int
    false_negatives: int
    true_positives: int


def evaluate(probabilities: NDArray[np.float64], labels: Labels) -> Evaluation:
    """Measure probabilities `[n]` of the positive label by labels `[n]`. Raises WorkError unless all are finite."""
    if not np.isfinite(probabilities).all():
        raise WorkError("the model gives probabilities that are not finite")
    guesses = probabilities >= THRESHOLD
    positives = labels == 1
    tn, fp, fn, tp = (
        int(np.sum(hit))
        for hit in (~guesses & ~positives, guesses & ~positives, ~guesses & positives, guesses & positives)
    )
    return Evaluation(
        count=len(labels),
        loss=_loss(probabilities, labels),
        accuracy=_share(tn + tp, len(labels)),
        auc=_auc(probabilities, labels),
        sensitivity=_share(tp, tp + fn),
        specificity=_share(tn, tn + fp),
        f1=_share(2 * tp, 2 * tp + fp + fn),
        true_negatives=tn,
        false_positives=fp,
        false_negatives=fn,
        true_positives=tp,
    )


def summarise(evaluation: Evaluation) -> dict[str, float]:
    """Give the figures that a message carries: those that are defined."""
    figures = {name: getattr(evaluation, name) for name in ("loss", "accuracy", "auc", "sensitivity", "specificity")}
    return {name: value for name, value in figures.items() if value is not None}


def roc_points(probabilities: NDArray[np.float64], labels: Labels) -> list[tuple[float, float]]:
    """Give the ROC curve as (false positive rate, true positive rate) from (0, 0) to (1, 1); empty for one class."""
    if not _has_both(labels):
        return []
    from sklearn.metrics import roc_curve

    false_rates, true_rates, _ = roc_curve(labels, probabilities)
    return [(float(x), float(y)) for x, y in zip(false_rates, true_rates, strict=True)]


def precision_recall_points(probabilities: NDArray[np.float64], labels: Labels) -> list[tuple[float, float]]:
    """Give the curve as (recall, precision) from recall 1 to (0, 1); empty for one class."""
    if not _has_both(labels):
        return []
    from sklearn.metrics import precision_recall_curve

    precisions, recalls, _ = precision_recall_curve(labels, probabilities)
    return [(float(x), float(y)) for x, y in zip(recalls, precisions, strict=True)]


def _auc(probabilities: NDArray[np.float64], labels: Labels) -> float | None:
    if not _has_both(labels):
        return None
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, probabilities))


def _loss(probabilities: NDArray[np.float64], labels: Labels) -> float | None:
    if len(labels) == 0:
        return None
    clipped = np.clip(probabilities, CLIP, 1 - CLIP)
    return float(-np.mean(np.where(labels == 1, np.log(clipped), np.log1p(-clipped))))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _has_both(labels: Labels) -> bool:
    return len(np.unique(labels)) == 2
