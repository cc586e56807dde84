"""What a row of the comparison came to: all folds pooled, so that every image is tested once. Pure."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.learning.evaluation import THRESHOLD
from common.learning.intervals import aucs
from common.learning.seam import Variant
from coordinator.rehearsal.results.cells import Cell, Measured, Probabilities
from coordinator.rehearsal.results.folds import Pool
from coordinator.rehearsal.results.grid import Row

DRAWS = 2000
LAST_ROUNDS = 5
NEAR = 0.01
"""So near to the AUC of one training on all images counts as having reached it."""

Array: TypeAlias = NDArray[np.float64]


class Figure(msgspec.Struct, frozen=True):
    """A value and its interval of 95 %."""

    value: float
    low: float
    high: float


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Of a row, the mean of its repeats and, of sites alone, of the sites' models; bytes and seconds of a mean fold."""

    row: Row
    auc: Figure
    accuracy: Figure
    sensitivity: Figure
    specificity: Figure
    auc_by_round: tuple[float, ...]
    auc_by_repeat: tuple[float, ...]
    """After the last round."""
    swing: float | None
    """Standard deviation of the AUC over a course's last rounds; None where there are too few."""
    down: tuple[float, ...]
    """Bytes of the global models up to each round; `up` those of all updates."""
    up: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def rounds(self) -> int:
        """How many rounds there were."""
        return len(self.auc_by_round)

    def reached(self, auc: float) -> int | None:
        """Return the first round, from 1, whose AUC is at most NEAR below `auc`."""
        return next((n for n, value in enumerate(self.auc_by_round, 1) if value >= auc - NEAR), None)


class VariantFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of a row's last models as a TFLite variant, a mean of its repeats; milliseconds are those of a median fold."""

    row: Row
    variant: Variant
    size: float
    accuracy: Figure
    auc: Figure
    other_labels: float
    """Images that Keras gives the other label, in a mean repeat."""
    max_difference: float
    """Largest distance of a probability from Keras's."""
    milliseconds: float


class _Sample:
    """All images, each tested in one fold of every repeat.

    Intervals are the percentile bootstrap's (Efron 1979) over groups of near copies.
    """

    def __init__(self, pool: Pool) -> None:
        self.labels = pool.examples.labels
        self.every = np.ones((1, len(self.labels)))
        self._draws = _draws(pool)

    def aucs(self, models: Sequence[Array]) -> list[float]:
        """Return that of each model's probabilities `[n]`."""
        return [float(aucs(found, self.labels, self.every)[0]) for found in models]

    def auc(self, models: Sequence[Array]) -> Figure:
        """Of each model's probabilities `[n]`, their mean."""
        return self._figure(models, lambda p, drawn: aucs(p, self.labels, drawn))

    def right(self, models: Sequence[Array], label: int | None = None) -> Figure:
        """Share that is labelled right: of all images, or of those with `label`."""
        of = np.ones(len(self.labels), np.bool_) if label is None else self.labels == label
        return self._figure(models, lambda p, drawn: drawn @ (of & self._is_right(p)) / (drawn @ of))

    def _is_right(self, probabilities: Array) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (probabilities >= THRESHOLD) == self.labels
        return found

    def _figure(self, models: Sequence[Array], measure: Callable[[Array, Array], Array]) -> Figure:
        low, high = np.nanpercentile(np.mean([measure(p, self._draws) for p in models], axis=0), (2.5, 97.5))
        return Figure(float(np.mean([measure(p, self.every) for p in models])), float(low), float(high))


def pooled(cells: Sequence[Cell], pool: Pool) -> Figures:
    """Pool a row's folds, repeat by repeat."""
    sample = _Sample(pool)
    courses = [_courses(folds, pool) for folds in _repeats(cells)]
    found = np.array([[sample.aucs(course) for course in repeat] for repeat in courses])  # [repeats, models, rounds]
    last = [course[-1] for repeat in courses for course in repeat]
    rounds = found.shape[2]
    return Figures(
        row=cells[0].row,
        auc=sample.auc(last),
        accuracy=sample.right(last),
        sensitivity=sample.right(last, 1),
        specificity=sample.right(last, 0),
        auc_by_round=tuple(found.mean((0, 1)).tolist()),
        auc_by_repeat=tuple(found[:, :, -1].mean(1).tolist()),
        swing=float(found[:, :, -LAST_ROUNDS:].std(2).mean()) if rounds >= LAST_ROUNDS else None,
        down=_means(cells, rounds, lambda measured: measured.down),
        up=_means(cells, rounds, lambda measured: measured.up),
        seconds=_means(cells, rounds, lambda measured: measured.seconds),
    )


def exported(cells: Sequence[Cell], pool: Pool) -> list[VariantFigures]:
    """Pool the folds of each variant that a row was exported as; empty where it was not."""
    sample, repeats = _Sample(pool), _repeats(cells)
    keras = np.array([_courses(folds, pool)[-1][-1] for folds in repeats])
    figures = []
    for place, exports in enumerate(zip(*(cell.exports for cell in cells), strict=True)):
        found = np.array(
            [_joined(pool, folds, [cell.exports[place].probabilities for cell in folds]) for folds in repeats]
        )
        variant = VariantFigures(
            row=cells[0].row,
            variant=exports[0].variant,
            size=float(np.mean([fold.size for fold in exports])),
            accuracy=sample.right(list(found)),
            auc=sample.auc(list(found)),
            other_labels=float(((found >= THRESHOLD) != (keras >= THRESHOLD)).sum(1).mean()),
            max_difference=max(fold.max_difference for fold in exports),
            milliseconds=float(np.median([fold.milliseconds for fold in exports])),
        )
        figures.append(variant)
    return figures


def _repeats(cells: Sequence[Cell]) -> list[list[Cell]]:
    return [[cell for cell in cells if cell.seed == seed] for seed in sorted({cell.seed for cell in cells})]


def _courses(folds: Sequence[Cell], pool: Pool) -> list[list[Array]]:
    """Of a repeat: for each model, for each round, the probabilities `[n]` of all images."""
    models = range(min(len(cell.models) for cell in folds))
    rounds = range(min(len(course) for cell in folds for course in cell.models))
    return [
        [_joined(pool, folds, [cell.models[model][number].probabilities for cell in folds]) for number in rounds]
        for model in models
    ]


def _joined(pool: Pool, folds: Sequence[Cell], found: Sequence[Probabilities]) -> Array:
    """Bring what the folds found into the order of the pool `[n]`."""
    names = (name for cell in folds for name in cell.names)
    values = dict(zip(names, chain.from_iterable(found), strict=True))
    return np.array([values[name] for name in pool.examples.names])


def _draws(pool: Pool) -> Array:
    """How often each image is drawn `[draws, n]`: with its near copies, or not at all."""
    number: Mapping[str, int] = {item.name: n for n, group in enumerate(pool.groups) for item in group.items}
    group_of = np.array([number[name] for name in pool.examples.names])
    count = len(pool.groups)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), DRAWS)
    found: Array = drawn[:, group_of].astype(np.float64)
    return found


def _means(cells: Sequence[Cell], rounds: int, measure: Callable[[Measured], float]) -> tuple[float, ...]:
    """Up to each round: of all models together, in a mean fold."""
    return tuple(
        sum(measure(course[number]) for cell in cells for course in cell.models) / len(cells)
        for number in range(rounds)
    )
