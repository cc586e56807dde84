"""What stays on the device between rounds, and what a training tells of the model that it begins with."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from common.blobs import BlobStore
from common.config import DataConfig
from common.errors import WorkError
from common.learning.numpy_learner import NumpyLearner, NumpyOptions
from common.plan import ModelChoice, RoundPlan, Training
from common.weights import Tensor, pack, unpack
from device.jobs import Done, Job, JobEvent, Progress
from device.personal import PersonalLayers
from device.runner import Workshop
from tests.rounds import plan_of

OPTIONS = {"tensors": 3, "parameters": 12}
LEARNER = NumpyLearner(NumpyOptions(tensors=3, parameters=12))
SPEC = LEARNER.spec()
MODEL = ModelChoice(name="numpy", options=OPTIONS)
TRAINING = Training(epochs=2, seed=7, personal=("tensor-001",))
PLAN = plan_of(model=MODEL, training=TRAINING)


class Site:
    """One device's training, round after round."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workshop = folder, Workshop()
        self.events: list[JobEvent] = []

    def train(self, base: list[Tensor], plan: RoundPlan = PLAN) -> list[Tensor]:
        """Run a job; returns its update."""
        models, draft = BlobStore(self.folder / "models"), self.folder / "draft"
        draft.write_bytes(pack(SPEC, base))
        ref = models.add(draft, SPEC, 4096)
        job = Job(
            round=1,
            device="pi",
            plan=plan,
            base=str(models.body(ref.id)),
            head=str(models.head_path(ref.id)),
            out=str(self.folder / "update.tmp"),
            personal=str(self.folder / "personal"),
            data=DataConfig(loader="common.learning.numpy_learner:no_images", options={"count": 20, "unseen": 4}),
            models={},
        )
        self.workshop.run(job, self.events.append)
        return unpack(SPEC, (self.folder / "update.tmp").read_bytes())


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def plan(model: ModelChoice = MODEL, **changes: Any) -> RoundPlan:
    """The usual plan, with other options of its training."""
    return plan_of(model=model, training=msgspec.structs.replace(TRAINING, **changes))


def test_the_update_of_a_personal_layer_is_zero_and_its_values_stay(site: Site) -> None:
    base = LEARNER.initial(0)
    update = site.train(base)
    step = update[0][0]
    assert step > 0
    assert update[1].tolist() == [0] * 4
    kept = PersonalLayers(site.folder / "personal", PLAN.model).read()
    assert list(kept) == [SPEC[1].name]
    np.testing.assert_allclose(kept[SPEC[1].name], base[1] + step, rtol=1e-6)


def test_the_next_round_goes_on_from_what_stayed_whatever_the_global_values(site: Site) -> None:
    base = LEARNER.initial(0)
    step = site.train(base)[0][0]
    site.train([np.zeros_like(tensor) for tensor in base])
    kept = PersonalLayers(site.folder / "personal", PLAN.model).read()
    np.testing.assert_allclose(kept[SPEC[1].name], base[1] + 2 * step, rtol=1e-6)


def test_extra_layers_that_are_not_personal_are_averaged_like_all_others(site: Site) -> None:
    update = site.train(LEARNER.initial(0), plan(personal=()))
    assert all((tensor > 0).all() for tensor in update)
    assert not (site.folder / "personal").exists()


def test_another_model_begins_anew(site: Site) -> None:
    site.train(LEARNER.initial(0))
    other = ModelChoice(name="numpy", options={"tensors": 3, "parameters": 15})
    assert PersonalLayers(site.folder / "personal", other).read() == {}


def test_a_damaged_file_begins_anew(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    site.train(LEARNER.initial(0))
    (file,) = (site.folder / "personal").iterdir()
    file.write_bytes(file.read_bytes()[:-30])
    assert PersonalLayers(site.folder / "personal", PLAN.model).read() == {}
    assert "begin anew" in caplog.text
    site.train(LEARNER.initial(0))
    assert len(PersonalLayers(site.folder / "personal", PLAN.model).read()) == 1


def test_a_failed_training_leaves_what_stayed_as_it_was(site: Site) -> None:
    site.train(LEARNER.initial(0))
    before = PersonalLayers(site.folder / "personal", PLAN.model).read()
    failing = ModelChoice(name="numpy", options={**OPTIONS, "fail": True})
    with pytest.raises(WorkError):
        site.train(LEARNER.initial(0), plan(model=failing))
    assert PersonalLayers(site.folder / "personal", PLAN.model).read().keys() == before.keys()
    assert PersonalLayers(site.folder / "personal", failing).read() == {}


def test_the_best_round_can_be_told_by_images_that_no_round_trains_on(site: Site) -> None:
    site.train(LEARNER.initial(0), plan(validation_share=0.2))
    (done,) = [event for event in site.events if isinstance(event, Done)]
    assert {"global_accuracy", "global_validation_accuracy", "global_validation_loss"} <= done.metrics.keys()
    site.train(LEARNER.initial(0))
    assert not any("validation" in name for name in site.events[-1].metrics)  # type: ignore[union-attr]  # it is Done


def test_progress_in_steps_never_passes_its_end(site: Site) -> None:
    site.train(LEARNER.initial(0), plan(steps=3, epochs=4, batch_size=16))
    told = [event for event in site.events if isinstance(event, Progress)]
    assert told
    assert all(event.epoch <= event.epochs for event in told)
