"""The course of a local training, without any framework."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.learning.course import Course, Patience, balance, batches, chart, hold_out, seeded
from common.learning.seam import Examples
from common.plan import ModelChoice, Training

MODEL = ModelChoice(name="numpy")


def noise(negatives: int, positives: int) -> Examples:
    labels = np.array([0] * negatives + [1] * positives, np.int64)
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 4, 4, 3), np.uint8)
    return Examples(images, labels, tuple(f"{place}.png" for place in range(len(labels))))


def test_epochs_make_the_steps_and_the_last_batch_may_be_short() -> None:
    assert chart(Training(epochs=3, batch_size=16, learning_rate=1e-3), 40) == Course(epochs=3, steps=9, per_epoch=3)


def test_steps_beat_epochs_and_the_last_epoch_may_be_short() -> None:
    course = chart(Training(epochs=50, steps=7, batch_size=16, learning_rate=1e-3), 40)
    assert (course.epochs, [course.steps_of(epoch) for epoch in (1, 2, 3)]) == (3, [3, 3, 1])


def test_no_epoch_has_no_step() -> None:
    assert chart(Training(epochs=0, learning_rate=1e-3), 40) == Course(0, 0, 3)


@given(st.integers(1, 60), st.integers(1, 20))
def test_an_epoch_sees_every_example_once(count: int, batch_size: int) -> None:
    found = list(batches(count, batch_size, np.random.default_rng(1)))
    assert sorted(np.concatenate(found).tolist()) == list(range(count))
    assert len(found) == chart(Training(epochs=1, batch_size=batch_size, learning_rate=1e-3), count).per_epoch


@given(st.integers(2, 40), st.integers(2, 40), st.floats(0.01, 0.9))
def test_each_label_stands_on_both_sides_in_about_its_share(negatives: int, positives: int, share: float) -> None:
    train, held = hold_out(noise(negatives, positives), share)
    for label, count in ((0, negatives), (1, positives)):
        kept, out = (int((part.labels == label).sum()) for part in (train, held))
        assert kept + out == count
        assert kept >= 1
        assert abs(out - share * count) <= 1
    assert sorted(train.names + held.names) == sorted(noise(negatives, positives).names)


def test_what_is_held_out_depends_on_pixels_alone() -> None:
    examples = noise(10, 10)
    order = np.random.default_rng(3).permutation(20)
    names = tuple(examples.names[place] for place in order)
    shuffled = Examples(examples.images[order], examples.labels[order], names)
    assert set(hold_out(examples, 0.3)[1].names) == set(hold_out(shuffled, 0.3)[1].names)


def test_no_share_holds_out_nothing_and_a_lone_example_is_trained_on() -> None:
    assert len(hold_out(noise(5, 5), 0.0)[1]) == 0
    train, held = hold_out(noise(1, 4), 0.5)
    assert ((train.labels == 0).sum(), (held.labels == 0).sum()) == (1, 0)


def test_both_labels_weigh_alike() -> None:
    weights = balance(np.array([0] * 9 + [1] * 3))
    assert weights[:9].sum() == pytest.approx(weights[9:].sum())
    assert weights.mean() == pytest.approx(1)
    assert balance(np.array([1, 1])).tolist() == [1, 1]


def test_patience_ends_after_so_many_epochs_without_a_better_loss() -> None:
    patience = Patience(2)
    for epoch, loss in enumerate((0.7, 0.5, 0.6, 0.5), 1):
        assert not patience.is_over
        patience = patience.after(epoch, loss)
    assert (patience.is_over, patience.epoch, patience.best) == (True, 2, 0.5)


def test_without_a_limit_patience_never_ends() -> None:
    patience = Patience(0)
    for epoch in range(1, 20):
        patience = patience.after(epoch, 1.0)
    assert not patience.is_over


def test_devices_and_rounds_draw_differently_and_a_repetition_the_same() -> None:
    plans = [
        seeded(Training(epochs=1, seed=seed, learning_rate=1e-3), device)
        for seed in (1, 2)
        for device in ("rpi1", "rpi2")
    ]
    assert len({plan.seed for plan in plans}) == 4
    assert seeded(Training(epochs=1, seed=1, learning_rate=1e-3), "rpi1") == plans[0]
