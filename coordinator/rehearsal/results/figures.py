"""What a row of the comparison came to: all folds pooled, so that every image is tested once. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.learning.evaluation import THRESHOLD
from common.learning.intervals import aucs
from common.learning.seam import Variant
from coordinator.rehearsal.results.cells import Cell, Measured
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
    """Of a row. Of sites alone they are the mean of the sites' models; bytes and seconds are those of a mean fold."""

    row: Row
    auc: Figure
    accuracy: Figure
    sensitivity: Figure
    specificity: Figure
    auc_by_round: tuple[float, ...]
    down: tuple[float, ...]
    """Bytes of the global models up to each round; `up` those of all updates."""
    up: tuple[float, ...]
    seconds: tuple[float, ...]

    @property
    def rounds(self) -> int:
        """How many rounds there were."""
        return len(self.auc_by_round)

    @property
    def swing(self) -> float | None:
        """Standard deviation of the AUC over the last rounds; None where there are too few."""
        return float(np.std(self.auc_by_round[-LAST_ROUNDS:])) if self.rounds >= LAST_ROUNDS else None

    def reached(self, auc: float) -> int | None:
        """Return the first round, from 1, whose AUC is at most NEAR below `auc`."""
        return next((n for n, value in enumerate(self.auc_by_round, 1) if value >= auc - NEAR), None)


class VariantFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Of a row's last models as a TFLite variant. Bytes are those of a mean fold, milliseconds of the median one."""

    row: Row
    variant: Variant
    size: float
    accuracy: Figure
    auc: Figure
    other_labels: int
    """Images that Keras gives the other label."""
    max_difference: float
    """Largest distance of a probability from Keras's."""
    milliseconds: float


class _Sample:
    """What all folds tested. Intervals are the percentile bootstrap's (Efron 1979) over groups of near copies."""

    def __init__(self, cells: Sequence[Cell], pool: Pool) -> None:
        place = {name: n for n, name in enumerate(pool.examples.names)}
        tested = np.array([place[name] for cell in cells for name in cell.names])
        self.labels = pool.examples.labels[tested]
        self.every = np.ones((1, len(tested)))
        self._draws = _draws(pool, tested)

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
    """Pool a row's folds."""
    sample = _Sample(cells, pool)
    models = min(len(cell.models) for cell in cells)
    rounds = min(len(course) for cell in cells for course in cell.models)
    last = [_joined(cells, model, rounds - 1) for model in range(models)]
    return Figures(
        row=cells[0].row,
        auc=sample.auc(last),
        accuracy=sample.right(last),
        sensitivity=sample.right(last, 1),
        specificity=sample.right(last, 0),
        auc_by_round=tuple(
            float(np.mean([aucs(_joined(cells, model, n), sample.labels, sample.every)[0] for model in range(models)]))
            for n in range(rounds)
        ),
        down=_means(cells, rounds, lambda measured: measured.down),
        up=_means(cells, rounds, lambda measured: measured.up),
        seconds=_means(cells, rounds, lambda measured: measured.seconds),
    )


def exported(cells: Sequence[Cell], pool: Pool) -> list[VariantFigures]:
    """Pool the folds of each variant that a row was exported as; empty where it was not."""
    sample, keras = _Sample(cells, pool), _joined(cells, -1, -1)
    figures = []
    for folds in zip(*(cell.exports for cell in cells), strict=True):
        found = np.concatenate([fold.probabilities for fold in folds])
        variant = VariantFigures(
            row=cells[0].row,
            variant=folds[0].variant,
            size=float(np.mean([fold.size for fold in folds])),
            accuracy=sample.right([found]),
            auc=sample.auc([found]),
            other_labels=int(((found >= THRESHOLD) != (keras >= THRESHOLD)).sum()),
            max_difference=max(fold.max_difference for fold in folds),
            milliseconds=float(np.median([fold.milliseconds for fold in folds])),
        )
        figures.append(variant)
    return figures


def _joined(cells: Sequence[Cell], model: int, number: int) -> Array:
    """All folds' probabilities `[n]` by one model after a round, counted from 0; negative ones from the end."""
    return np.concatenate([cell.models[model][number].probabilities for cell in cells])


def _draws(pool: Pool, tested: NDArray[np.int64]) -> Array:
    """How often each tested image is drawn `[draws, n]`: with its near copies, or not at all."""
    number: Mapping[str, int] = {item.name: n for n, group in enumerate(pool.groups) for item in group.items}
    group_of = np.array([number[pool.examples.names[place]] for place in tested])
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
