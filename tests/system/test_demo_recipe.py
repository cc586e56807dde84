"""What the demo's recipe is for: the federation gains over the initial model, and over a site by itself."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from common.config import DataConfig, convert
from common.learning.evaluation import evaluate
from common.learning.folders import find_labelled
from common.learning.label_csv import write_label_csv
from common.learning.seam import Learner, Site, build, load
from common.plan import Training
from common.weights import Tensor
from coordinator.config import CoordinatorConfig
from coordinator.dataset.split import Group, SplitOptions, deal
from coordinator.dataset.synthetic import draw_slices
from coordinator.rehearsal.alone import train_alone
from coordinator.rehearsal.demo import DEVICES, SYNTHETIC_PER_LABEL
from coordinator.rehearsal.recipes import SHARES, SIMPLE_CNN, UNSEEN_SHARE
from coordinator.rehearsal.results.simulation import Stage, simulate

pytestmark = pytest.mark.tensorflow

SEED = 20
"""The recipe was chosen on others, and never on those that people try first."""
LABELS = SplitOptions().label_names


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's drawn slices, split by its shares; that they are no near copies of each other is not looked at."""
    home = tmp_path_factory.mktemp("demo")
    draw_slices(home, SYNTHETIC_PER_LABEL, SEED)
    groups = [Group((item,), item.label) for item in find_labelled(home, LABELS).items]
    held, kept = UNSEEN_SHARE, 1 - UNSEEN_SHARE
    shares = {"coordinator": SHARES[0]}
    for device, share in zip(DEVICES, SHARES[1:], strict=True):
        shares |= {device: share * kept, f"{device}_unseen": share * held}
    for name, found in deal(groups, shares, SplitOptions(seed=SEED)).items():
        write_label_csv(home / f"{name}.csv", [(g.items[0].name, LABELS[g.label]) for g in found])
    return home


def test_the_federation_gains_over_the_initial_model_and_over_each_site_alone(parts: Path, tmp_path: Path) -> None:
    recipe = SIMPLE_CNN
    plain = {"model": recipe.model, "training": {**recipe.training, "seed": SEED}, "strategy": recipe.strategy}
    config = convert({"federation": "x", "state": "x", **plain}, CoordinatorConfig, "the recipe")
    learner = build(config.model, {})
    sites = {device: read(parts, device, learner) for device in DEVICES}
    assert sum(len(site.unseen) for site in sites.values()) >= 200

    first = {key: value for key, value in recipe.initial.items() if key != "source"}
    plan = Training(seed=SEED, **first)
    start = learner.train(learner.initial(SEED), read(parts, "coordinator", learner), plan, lambda *_: None).weights
    stage = Stage(learner, sites, tmp_path)
    (*_, last) = simulate(config, stage, start, recipe.rounds)
    models = train_alone(config, stage, start, recipe.rounds, lambda _: None)

    before, after = auc(learner, start, sites), auc(learner, last.weights, sites)
    alone = np.mean([auc(learner, weights, sites) for weights in models.values()])
    assert after - before >= 0.03
    assert after - alone >= 0.02


def read(parts: Path, name: str, learner: Learner) -> Site:
    unseen = parts / f"{name}_unseen.csv"
    data = {"images": str(parts), "labels": str(parts / f"{name}.csv")}
    if unseen.exists():
        data["unseen"] = str(unseen)
    return load(convert(data, DataConfig, name), learner.image_size)


def auc(learner: Learner, weights: list[Tensor], sites: Mapping[str, Site]) -> float:
    """On the unseen images of all sites."""
    found = np.concatenate([learner.predict(weights, site.unseen.images) for site in sites.values()])
    value = evaluate(found, np.concatenate([site.unseen.labels for site in sites.values()])).auc
    assert value is not None
    return value
