"""The learning rate over the rounds."""

import math

import pytest

from coordinator.schedule import Constant, Cosine, Schedule, Steps, learning_rate


def rates(schedule: Schedule, rounds: int) -> list[float]:
    return [learning_rate(schedule, 1.0, number) for number in range(1, rounds + 1)]


def test_a_constant_rate_stays() -> None:
    assert rates(Constant(), 3) == [1.0, 1.0, 1.0]


def test_a_warm_up_rises_evenly_to_the_full_rate() -> None:
    assert rates(Constant(warmup_rounds=3), 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_steps_fall_after_every_few_rounds() -> None:
    assert rates(Steps(every=2, factor=0.5), 6) == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25]
    assert rates(Steps(every=2, factor=0.5, warmup_rounds=1), 5) == [0.5, 1.0, 1.0, 0.5, 0.5]


def test_a_cosine_falls_to_its_end_and_stays_there() -> None:
    found = rates(Cosine(rounds=5, final=0.1), 7)
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * place / 4)) / 2 for place in range(5)]
    assert found == pytest.approx([*expected, 0.1, 0.1])
    assert found[0] == 1.0


def test_a_cosine_begins_after_the_warm_up() -> None:
    assert rates(Cosine(rounds=4, final=0.5, warmup_rounds=1), 5) == pytest.approx([0.5, 1.0, 0.75, 0.5, 0.5])


def test_a_rate_never_becomes_zero() -> None:
    assert learning_rate(Steps(every=1, factor=1e-9), 1e-3, 100_000) > 0
    assert learning_rate(Cosine(rounds=1, warmup_rounds=0), 1.0, 1) > 0
