"""Each site by itself: its own images only, from the same initial model, by the plans of the rounds."""

from pathlib import Path

import numpy as np

from common.config import convert
from common.learning.course import seeded
from common.learning.seam import Examples, Site, build
from coordinator.config import CoordinatorConfig
from coordinator.rehearsal.alone import train_alone
from coordinator.rehearsal.results.simulation import Stage

ROUNDS = 3
PLAIN = {
    "federation": "x",
    "state": "x",
    "model": {"name": "numpy"},
    "training": {"epochs": 2, "seed": 5},
    "strategy": {"name": "fedavgm", "momentum": 0.5},
}


def site(seed: int) -> Site:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (8, 16, 16, 3), np.uint8)
    return Site(Examples(images, np.arange(8) % 2), Examples(images[:0], np.zeros(0, np.int64)))


def test_a_site_alone_is_what_its_own_trainings_one_after_another_come_to(tmp_path: Path) -> None:
    config = convert(PLAIN, CoordinatorConfig, "test")
    learner = build(config.model, {})
    start, told = learner.initial(0), list[str]()
    sites = {"rpi1": site(1), "rpi2": site(2)}
    found = train_alone(config, Stage(learner, sites, tmp_path), start, ROUNDS, told.append)

    assert list(found) == ["rpi1", "rpi2"]
    assert told[:3] == ["rpi1: 1 of 3", "rpi1: 2 of 3", "rpi1: 3 of 3"]
    for name, weights in found.items():
        expected = start
        for number in range(1, ROUNDS + 1):
            plan = seeded(config.training_in(number), name)
            expected = learner.train(expected, sites[name], plan, lambda *_: None).weights
        for one, other in zip(weights, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
