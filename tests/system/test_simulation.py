"""A simulation and live rounds come to the same bytes: what `docs/results.md` says of its figures."""

from pathlib import Path
from typing import Any

import pytest

from common.config import DataConfig, convert
from common.learning.numpy_learner import no_images, numpy_learner
from common.weights import pack, unpack
from coordinator.config import CoordinatorConfig
from coordinator.rehearsal.results.simulation import Stage, simulate
from tests.system.conftest import MODEL, SEED, LiveFederation, initial_model

EXAMPLES = {"rpi1": 7, "rpi2": 30, "rpi3": 12}
OPTIONS: dict[str, Any] = {
    "model": {"name": "numpy", "options": {**MODEL, "work": "noise", "frozen_tensors": 1}},
    "strategy": {"name": "fedadam", "server_learning_rate": 0.03},
    "training": {"seed": SEED, "epochs": 2, "schedule": {"name": "cosine", "rounds": 3}, "evaluate": False},
}
ROUNDS = 3


@pytest.mark.system
def test_simulated_rounds_make_the_bytes_of_live_ones(tmp_path: Path) -> None:
    learner = numpy_learner(OPTIONS["model"]["options"])
    spec = learner.spec()
    config = convert({"federation": "simulated", "state": "state", **OPTIONS}, CoordinatorConfig, "test")
    sites = {name: no_images(DataConfig(options={"count": count}), 0) for name, count in EXAMPLES.items()}
    stage = Stage(learner, sites, tmp_path / "simulated")
    simulated = [pack(spec, done.weights) for done in simulate(config, stage, unpack(spec, initial_model()), ROUNDS)]
    assert len({initial_model(), *simulated}) == ROUNDS + 1

    with LiveFederation(tmp_path / "live", EXAMPLES) as live:
        live.begin("mosquitto", OPTIONS["model"]["options"], strategy=OPTIONS["strategy"], training=OPTIONS["training"])
        assert live.model() == initial_model()
        for number, expected in enumerate(simulated, 1):
            live.run()
            assert live.model() == expected, f"round {number}"
