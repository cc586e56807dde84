import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import WorkError
from common.learning.evaluation import evaluate, roc_points, summarise

LABELS = np.array([0, 0, 0, 1, 1])
PROBABILITIES = np.array([0.1, 0.4, 0.7, 0.6, 0.9])


def test_a_hand_counted_example() -> None:
    found = evaluate(PROBABILITIES, LABELS)
    counts = (found.true_negatives, found.false_positives, found.false_negatives, found.true_positives)
    assert counts == (2, 1, 0, 2)
    assert (found.count, found.accuracy, found.sensitivity) == (5, 0.8, 1.0)
    assert found.specificity == pytest.approx(2 / 3)
    assert found.auc == pytest.approx(5 / 6)
    assert found.loss == pytest.approx(-math.log(0.9 * 0.6 * 0.3 * 0.6 * 0.9) / 5)


def test_a_probability_of_one_half_is_the_positive_label() -> None:
    assert evaluate(np.array([0.5]), np.array([1])).true_positives == 1


def test_a_certain_mistake_costs_much_but_not_infinitely_much() -> None:
    found = evaluate(np.array([0.0, 1.0]), np.array([1, 0]))
    assert found.loss == pytest.approx(-math.log(1e-7), rel=1e-6)
    assert found.auc == 0.0


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc_and_no_curve(label: int) -> None:
    labels = np.full(3, label)
    found = evaluate(np.array([0.2, 0.6, 0.9]), labels)
    assert found.auc is None
    assert (found.sensitivity is None, found.specificity is None) == (label == 0, label == 1)
    assert roc_points(np.array([0.2, 0.6, 0.9]), labels) == []
    assert set(summarise(found)) == {"loss", "accuracy", "specificity" if label == 0 else "sensitivity"}


def test_no_images_have_no_figures() -> None:
    found = evaluate(np.empty(0), np.empty(0, np.int64))
    assert found.count == 0
    assert summarise(found) == {}


def test_probabilities_that_are_not_finite_are_refused() -> None:
    with pytest.raises(WorkError, match="not finite"):
        evaluate(np.array([0.5, math.nan]), np.array([0, 1]))


def test_the_curve_runs_from_corner_to_corner() -> None:
    points = roc_points(PROBABILITIES, LABELS)
    assert (points[0], points[-1]) == ((0.0, 0.0), (1.0, 1.0))
    assert points == sorted(points)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), max_size=30))
def test_auc_is_the_chance_that_a_positive_outranks_a_negative(pairs: list[tuple[int, int]]) -> None:
    labels = np.array([label for label, _ in pairs], np.int64)
    probabilities = np.array([rank / 8 for _, rank in pairs])
    found = evaluate(probabilities, labels)
    wins = [(p > n) + (p == n) / 2 for p in probabilities[labels == 1] for n in probabilities[labels == 0]]
    assert found.auc == (pytest.approx(sum(wins) / len(wins)) if wins else None)
    assert all(math.isfinite(figure) for figure in summarise(found).values())
