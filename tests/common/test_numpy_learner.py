import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common import weights
from common.config import DataConfig
from common.errors import ConfigError, DataError, WorkError
from common.learning.numpy_learner import NumpyLearner, no_images, numpy_learner
from common.learning.seam import build, load
from common.plan import ModelChoice, Training

SMALL = {"tensors": 3, "parameters": 10}
PLAN = Training(epochs=2, seed=7, learning_rate=1e-3)
SITE = no_images(DataConfig(), 0)


def ignore(_epoch: int, _metrics: object) -> None:
    pass


def small(**options: object) -> NumpyLearner:
    return numpy_learner({**SMALL, **options})


def test_without_options_it_is_the_model_of_the_benchmark() -> None:
    spec = build(ModelChoice(name="numpy"), {}).spec()
    weights.validate(spec)
    assert len(spec) == 60
    assert weights.nbytes(spec) == 9_040_000


def test_parameters_are_shared_out_to_the_last_one() -> None:
    assert [tensor.shape for tensor in small().spec()] == [(4,), (3,), (3,)]
    assert weights.spec_of([t.name for t in small().spec()], small().initial(0)) == small().spec()


def test_training_adds_the_same_constant_everywhere_once_an_epoch() -> None:
    trained = small().train(
        [np.zeros(4, np.float32), np.ones(3, np.float32), np.ones(3, np.float32)], SITE, PLAN, ignore
    )
    step = 2 * 8 / 1024
    assert [set(tensor.tolist()) for tensor in trained.weights] == [{step}, {1 + step}, {1 + step}]
    assert trained.num_examples == 10


def test_another_seed_gives_another_update() -> None:
    start = small().initial(0)
    one, other = (
        small().train(start, SITE, plan, ignore) for plan in (PLAN, Training(epochs=1, seed=8, learning_rate=1e-3))
    )
    assert not np.array_equal(one.weights[0], other.weights[0])


def test_noise_follows_from_the_seed_and_no_two_values_of_an_update_are_alike() -> None:
    learner, start = small(work="noise"), [np.zeros(4, np.float32), np.zeros(3, np.float32), np.zeros(3, np.float32)]
    once = Training(epochs=1, seed=7, learning_rate=1e-3)
    one, again = (np.concatenate(learner.train(start, SITE, once, ignore).weights) for _ in range(2))
    other = np.concatenate(learner.train(start, SITE, Training(epochs=1, seed=8, learning_rate=1e-3), ignore).weights)
    assert np.array_equal(one, again)
    assert np.unique(np.concatenate([one, other])).size == 20
    assert np.abs(one).max() <= 0.5


def test_training_leaves_the_global_weights_alone() -> None:
    data = weights.pack(small().spec(), small().initial(0))
    views = weights.unpack(small().spec(), data)
    small().train(views, SITE, PLAN, ignore)
    assert weights.pack(small().spec(), views) == data


def test_frozen_tensors_come_back_bit_by_bit() -> None:
    start = small().initial(0)
    trained = small(frozen_tensors=2).train(start, SITE, PLAN, ignore).weights
    changed = [not np.array_equal(a, b) for a, b in zip(start, trained, strict=True)]
    assert changed == [False, False, True]


def test_every_epoch_is_told_with_its_loss() -> None:
    told: list[tuple[int, float]] = []
    small().train(small().initial(0), SITE, PLAN, lambda epoch, metrics: told.append((epoch, metrics["loss"])))
    assert told == [(1, 1 / 2), (2, 1 / 3)]


def test_a_trainer_told_to_fail_fails() -> None:
    with pytest.raises(WorkError, match="told to fail"):
        small(fail=True).train(small().initial(0), SITE, PLAN, ignore)


@pytest.mark.process
def test_weights_are_read_from_a_file_by_tensor_name(tmp_path: Path) -> None:
    start = small().initial(3)
    named = {tensor.name: values for tensor, values in zip(small().spec(), start, strict=True)}
    np.savez(tmp_path / "start.npz", **named)  # type: ignore[arg-type]  # the stub takes the names for options
    read = small().read(tmp_path / "start.npz")
    assert all(np.array_equal(a, b) for a, b in zip(start, read, strict=True))


@pytest.mark.process
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        (b"nothing", "no weight file"),
        ({"tensor-000": np.zeros(4, np.float32)}, "tensor-001"),
        ({f"tensor-00{place}": np.zeros(4) for place in range(3)}, "float64"),
    ],
)
def test_a_file_that_does_not_fit_is_named(
    tmp_path: Path, content: bytes | dict[str, np.ndarray] | None, problem: str
) -> None:
    path = tmp_path / "start.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)  # type: ignore[arg-type]  # the stub takes the names for options
    with pytest.raises(DataError, match=r"start\.npz") as caught:
        small().read(path)
    assert problem in str(caught.value)


def test_export_says_that_there_is_no_tflite_form(tmp_path: Path) -> None:
    with pytest.raises(WorkError, match="no TFLite form"):
        small().export(small().initial(0), tmp_path)


def test_an_unknown_option_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="'tensor'; did you mean 'tensors'"):
        numpy_learner({"tensor": 3})


def test_more_tensors_than_parameters_are_refused() -> None:
    with pytest.raises(ConfigError, match="lower 'tensors'"):
        numpy_learner({"tensors": 5, "parameters": 4})


def test_a_site_without_images_has_the_examples_it_was_told_to_have() -> None:
    data = DataConfig(loader="common.learning.numpy_learner:no_images", options={"count": 25, "unseen": 4})
    site = load(data, 0)
    assert (len(site.train), len(site.unseen)) == (25, 4)
    assert small().predict(small().initial(0), site.unseen.images).tolist() == [0.5] * 4


def test_it_loads_neither_tensorflow_nor_pillow() -> None:
    code = (
        "import sys, common.learning.numpy_learner as n; n.numpy_learner({}).initial(0); "
        "print({'tensorflow', 'keras', 'PIL', 'sklearn'} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "set()"
