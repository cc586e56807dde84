"""How far a figure may be off, against formulas and counts made elsewhere."""

import numpy as np
import pytest

from common.learning.evaluation import evaluate, precision_recall_points
from common.learning.intervals import aucs, spread, wilson


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662), (10, 10, 0.7225, 1.0)],
)
def test_wilsons_interval_of_published_examples(part: int, whole: int, low: float, high: float) -> None:
    """81 of 263 stands in Newcombe (1998), table I."""
    found = wilson(part, whole)
    assert found == pytest.approx((low, high), abs=1e-4)


def test_no_images_have_no_interval() -> None:
    assert wilson(0, 0) is None
    empty = np.zeros(0)
    found = spread(evaluate(empty, empty.astype(np.int64)), empty, empty.astype(np.int64))
    assert (found.accuracy, found.auc, found.f1, found.loss) == (None, None, None, None)


def test_the_area_of_every_draw_is_that_of_the_images_drawn() -> None:
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 2, 30), rng.integers(0, 8, 30) / 8  # with ties
    draws = rng.multinomial(30, np.full(30, 1 / 30), 20)
    for area, draw in zip(aucs(probabilities, labels, draws.astype(np.float64)), draws, strict=True):
        places = np.repeat(np.arange(30), draw)
        assert area == pytest.approx(evaluate(probabilities[places], labels[places]).auc)


@pytest.mark.slow
def test_the_bootstrap_holds_the_figure_and_narrows_with_more_images() -> None:
    rng = np.random.default_rng(1)

    def widths(count: int) -> list[float]:
        labels = np.arange(count) % 2
        probabilities = np.clip(0.5 + 0.3 * (labels - 0.5) + 0.2 * rng.standard_normal(count), 0, 1)
        figures = evaluate(probabilities, labels)
        found = spread(figures, probabilities, labels)
        pairs = ((found.auc, figures.auc), (found.f1, figures.f1), (found.loss, figures.loss))
        for interval, value in pairs:
            assert interval is not None
            assert value is not None
            assert interval[0] < value < interval[1]
        return [interval[1] - interval[0] for interval, _ in pairs if interval is not None]

    assert all(few > 3 * many for few, many in zip(widths(40), widths(4000), strict=True))


def test_the_same_images_have_the_same_interval() -> None:
    labels, probabilities = np.arange(20) % 2, np.linspace(0, 1, 20)
    figures = evaluate(probabilities, labels)
    assert spread(figures, probabilities, labels) == spread(figures, probabilities, labels)


def test_one_label_only_has_no_area_but_a_loss() -> None:
    labels, probabilities = np.ones(9, np.int64), np.full(9, 0.7)
    found = spread(evaluate(probabilities, labels), probabilities, labels)
    assert found.auc is None
    assert found.loss == pytest.approx((-np.log(0.7), -np.log(0.7)))


def test_f1_and_the_curve_of_precision_and_recall_of_a_hand_counted_example() -> None:
    labels, probabilities = np.array([0, 0, 0, 1, 1]), np.array([0.1, 0.4, 0.7, 0.6, 0.9])
    assert evaluate(probabilities, labels).f1 == pytest.approx(2 * 2 / (2 * 2 + 1 + 0))
    points = precision_recall_points(probabilities, labels)
    assert any(point == pytest.approx((1.0, 2 / 3)) for point in points)
    assert points[-1] == (0.0, 1.0)
    assert precision_recall_points(probabilities, np.zeros(5, np.int64)) == []
