"""How far a figure may be off for want of images: intervals of 95 %."""

from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.learning.evaluation import CLIP, THRESHOLD, Evaluation
from common.learning.seam import Labels

Z = 1.959963984540054
"""The normal distribution's 97.5 % quantile."""
RESAMPLES = 2000
Interval: TypeAlias = tuple[float, float]


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """The interval of each figure; None where the images do not define one."""

    accuracy: Interval | None
    sensitivity: Interval | None
    specificity: Interval | None
    auc: Interval | None
    f1: Interval | None
    loss: Interval | None


def spread(evaluation: Evaluation, probabilities: NDArray[np.float64], labels: Labels, seed: int = 0) -> Spread:
    """Give the intervals of `evaluation`, which measured `probabilities` `[n]` by `labels` `[n]`.

    Shares have Wilson's interval, the others the percentile bootstrap's, over images drawn from `seed`. Near
    copies among the images make both too narrow.
    """
    e = evaluation
    drawn = _bootstrap(probabilities, labels, seed)
    return Spread(
        accuracy=wilson(e.true_negatives + e.true_positives, e.count),
        sensitivity=wilson(e.true_positives, e.true_positives + e.false_negatives),
        specificity=wilson(e.true_negatives, e.true_negatives + e.false_positives),
        auc=drawn.get("auc"),
        f1=drawn.get("f1"),
        loss=drawn.get("loss"),
    )


def wilson(part: int, whole: int) -> Interval | None:
    """The score interval of a share (Wilson 1927, "Probable inference, the law of succession, and statistical ...")."""
    if whole == 0:
        return None
    share, z2 = part / whole, Z * Z
    centre = (share + z2 / (2 * whole)) / (1 + z2 / whole)
    reach = Z / (1 + z2 / whole) * np.sqrt(share * (1 - share) / whole + z2 / (4 * whole * whole))
    return max(float(centre - reach), 0.0), min(float(centre + reach), 1.0)


def _bootstrap(probabilities: NDArray[np.float64], labels: Labels, seed: int) -> dict[str, Interval]:
    """Percentiles 2.5 and 97.5 over resampled images (Efron 1979); draws that do not define a figure are left out."""
    count = len(labels)
    if count == 0:
        return {}
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)
    clipped = np.clip(probabilities, CLIP, 1 - CLIP)
    losses = -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))
    figures = {
        "auc": aucs(probabilities, labels, draws),
        "f1": _f1s(probabilities, labels, draws),
        "loss": draws @ losses / count,
    }
    found = {}
    for name, values in figures.items():
        if len(defined := values[np.isfinite(values)]):
            low, high = np.percentile(defined, (2.5, 97.5))
            found[name] = float(low), float(high)
    return found


def aucs(probabilities: NDArray[np.float64], labels: Labels, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area under the ROC curve of each row of `draws` `[r, n]`, which says how often each image was drawn.

    The share of pairs in which the positive is ranked higher (Mann and Whitney 1947); not-a-number for one label.
    """
    values, place = np.unique(probabilities, return_inverse=True)
    is_value = (place[:, None] == np.arange(len(values))).astype(np.float64)
    positives, negatives = (draws * labels) @ is_value, (draws * (1 - labels)) @ is_value
    below = np.cumsum(negatives, axis=1) - negatives / 2
    return _ratio((positives * below).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))


def _f1s(probabilities: NDArray[np.float64], labels: Labels, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    guesses = (probabilities >= THRESHOLD).astype(np.float64)
    return _ratio(2 * draws @ (guesses * labels), draws @ (guesses + labels))


def _ratio(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    ratios: NDArray[np.float64] = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return ratios
