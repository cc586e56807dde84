import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import weights
from common.errors import ConfigError, DataError, WorkError
from common.learning.seam import Examples, Learner, Site, build
from common.plan import ModelChoice, Training
from common.weights import Tensor
from tests.test_protocol_document import table

pytestmark = [
    pytest.mark.tensorflow,
    # Keras reads TensorFlow's variables in a way that NumPy 2 discourages.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SIZE = 32
PLAN = Training(epochs=2, batch_size=16, seed=3, learning_rate=1e-3)


def choose(name: str, **options: Any) -> Learner:
    return build(ModelChoice(name=name, options={"image_size": SIZE, **options}), {})


def wrap(*layers: Any, **options: Any) -> Learner:
    """A user's model: a name other than ours, layers of their own."""
    from common.learning.framework import keras
    from common.learning.keras_learner import KerasLearner

    end = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, activation="sigmoid")]
    return KerasLearner(keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers, *end]), **options)


def spots(count: int) -> Site:
    """Dark noise; every other image has a bright spot."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (count, SIZE, SIZE, 3), np.uint8)
    labels = np.arange(count, dtype=np.int64) % 2
    for place in np.flatnonzero(labels):
        x, y = rng.integers(4, SIZE - 12, 2)
        images[place, y : y + 8, x : x + 8] = 220
    examples = Examples(images, labels)
    return Site(examples, examples)


SITE = spots(40)


def ignore(_epoch: int, _metrics: object) -> None:
    pass


def digest(tensors: list[Tensor]) -> str:
    return hashlib.sha256(b"".join(tensor.tobytes() for tensor in tensors)).hexdigest()


def train(learner: Learner, start: list[Tensor], plan: Training = PLAN, site: Site = SITE) -> list[Tensor]:
    return learner.train(start, site, plan, ignore).weights


def changed(before: list[Tensor], after: list[Tensor]) -> list[bool]:
    return [a.tobytes() != b.tobytes() for a, b in zip(before, after, strict=True)]


DIGEST = """
from tests.common.test_keras_learner import choose, digest, train
learner = choose("simple_cnn", dropout=0.3)
print(digest(train(learner, learner.initial(1))))
"""


def test_the_same_arguments_give_the_same_bytes_in_a_warm_and_in_a_new_process() -> None:
    learner = choose("simple_cnn", dropout=0.3)
    start = learner.initial(1)
    first = digest(train(learner, start))
    other = Training(epochs=1, batch_size=8, seed=9, learning_rate=0.01)
    assert digest(train(learner, start, other)) != first
    assert digest(train(learner, start)) == first
    child = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == first
    assert child.stderr == ""


def test_a_second_training_traces_nothing_again() -> None:
    from common.learning.framework import keras

    class Counting(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
        calls = 0

        def call(self, pixels: Any) -> Any:
            Counting.calls += 1
            return pixels

    learner = wrap(Counting())
    start = learner.initial(0)
    train(learner, start)
    traces = Counting.calls
    train(learner, start, Training(epochs=1, batch_size=7, learning_rate=0.1), spots(11))
    assert Counting.calls == traces


def test_two_builds_in_one_process_name_every_tensor_alike_and_once() -> None:
    one, other = choose("simple_cnn").spec(), choose("simple_cnn").spec()
    weights.validate(one)
    assert one == other
    assert [tensor.name for tensor in one[:2]] == ["000/sequential/conv1/kernel", "001/sequential/conv1/bias"]
    assert one == weights.spec_of([tensor.name for tensor in one], choose("simple_cnn").initial(0))


def test_the_tensors_of_built_in_models_are_named_as_the_protocol_says() -> None:
    stated = dict(table("Tensors of the built-in models"))
    for name in ("simple_cnn", "extra_dense_cnn"):
        tensors = choose(name).spec()
        assert stated[f"`{name}`"] == ", ".join(f"`{tensor.name}`" for tensor in tensors)
        assert {tensor.dtype for tensor in tensors} == {"float32"}
    names = [f"`{tensor.name}`" for tensor in choose("mobilenet_v2", weights=None).spec()]
    count = f"and so on, {len(names)} in all, the last ones"
    assert stated["`mobilenet_v2`"] == f"{names[0]}, {names[1]} {count} {names[-2]}, {names[-1]}"
    assert [tensor.name for tensor in build(ModelChoice(name="numpy"), {}).spec()[:2]] == ["tensor-000", "tensor-001"]


def test_random_layers_share_no_state() -> None:
    assert choose("simple_cnn", dropout=0.5).spec() == choose("simple_cnn").spec()


def test_a_seed_decides_the_initial_weights() -> None:
    learner = choose("simple_cnn")
    assert digest(learner.initial(5)) == digest(learner.initial(5))
    assert digest(learner.initial(5)) != digest(learner.initial(6))


def test_it_learns_to_find_a_spot() -> None:
    learner = choose("simple_cnn")
    plan = Training(epochs=15, batch_size=8, learning_rate=3e-3)
    told: list[int] = []
    trained = learner.train(learner.initial(0), SITE, plan, lambda epoch, _metrics: told.append(epoch))
    right = (learner.predict(trained.weights, SITE.unseen.images) >= 0.5) == SITE.unseen.labels
    assert right.mean() > 0.9
    assert (trained.num_examples, told) == (40, list(range(1, 16)))
    assert trained.metrics["accuracy"] > 0.8


@pytest.mark.parametrize(("batch_norm", "trained"), [("frozen", {"kernel", "bias"}), ("trained", {"gamma", "moving"})])
def test_mobilenet_trains_its_last_layers_only(batch_norm: str, trained: set[str]) -> None:
    learner = choose("mobilenet_v2", weights=None, trainable_layers=8, batch_norm=batch_norm)
    start = learner.initial(0)
    after = train(learner, start, Training(epochs=1, batch_size=20, learning_rate=1e-3))
    names = [t.name for t, is_new in zip(learner.spec(), changed(start, after), strict=True) if is_new]
    assert {name.split("/")[1].partition("_")[0] for name in names} == {"block", "Conv", "sequential"}
    assert all("block_16" in name for name in names if "block" in name)
    assert any(part in name for name in names for part in trained)
    assert any("gamma" in name or "moving" in name for name in names) == (batch_norm == "trained")


def test_no_epoch_changes_nothing() -> None:
    learner = choose("simple_cnn")
    start = learner.initial(0)
    assert not any(changed(start, train(learner, start, Training(epochs=0, learning_rate=1e-3))))


def test_a_loss_that_is_not_finite_is_a_failed_training() -> None:
    learner = wrap()
    start = [np.full_like(tensor, np.nan) for tensor in learner.initial(0)]
    with pytest.raises(WorkError, match="the loss is not finite in epoch 1"):
        train(learner, start)


def test_a_last_step_that_spoils_the_weights_is_a_failed_training() -> None:
    from common.learning.framework import keras, tf

    class Spoiling(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
        def call(self, pixels: Any) -> Any:
            return tf.sqrt(pixels * 0)  # finite forwards, infinite backwards

    learner = wrap(keras.layers.Conv2D(1, 1), Spoiling())
    with pytest.raises(WorkError, match="the weights are not finite"):
        train(learner, learner.initial(0), Training(epochs=1, batch_size=len(SITE.train), learning_rate=1e-3))


def test_pretrained_weights_come_from_a_file_and_the_head_from_the_seed(tmp_path: Path) -> None:
    from common.learning.framework import keras

    path = tmp_path / "pretrained.weights.h5"
    source = keras.applications.MobileNetV2(input_shape=(64, 64, 3), alpha=0.35, include_top=False, weights=None)
    source.save_weights(path)
    learner = choose("mobilenet_v2", weights=str(path))
    one, other = learner.initial(1), learner.initial(2)
    assert not any(changed(one[:-2], source.get_weights()))
    assert changed(one, other) == [False] * 260 + [True, False]


def test_only_the_initial_model_needs_the_pretrained_file(tmp_path: Path) -> None:
    learner = choose("mobilenet_v2", weights=str(tmp_path / "elsewhere.h5"))
    with pytest.raises(DataError, match=r"elsewhere\.h5"):
        learner.initial(0)


def test_a_file_that_holds_no_weights_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.h5"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"broken\.h5"):
        choose("mobilenet_v2", weights=str(path)).initial(0)


def test_an_exported_model_is_read_again(tmp_path: Path) -> None:
    learner = choose("mobilenet_v2", weights=None)
    start = learner.initial(4)
    learner.export(start, tmp_path)
    assert not any(changed(start, choose("mobilenet_v2", weights=None).read(tmp_path / "model.keras")))
    with pytest.raises(DataError, match=r"model\.keras: holds no weights of this model"):
        choose("simple_cnn").read(tmp_path / "model.keras")
    with pytest.raises(DataError, match=r"model\.tflite: it is a TFLite model"):
        learner.read(tmp_path / "model.tflite")


def test_any_number_of_images_is_predicted() -> None:
    learner = choose("simple_cnn")
    start = learner.initial(0)
    every = learner.predict(start, SITE.unseen.images)
    assert every.dtype == np.float64
    assert np.allclose(every[:5], learner.predict(start, SITE.unseen.images[:5]), atol=1e-6)
    assert learner.predict(start, SITE.unseen.images[:0]).shape == (0,)


@pytest.mark.parametrize("shape", [(32, 24, 3), (32, 32, 1)])
def test_a_model_for_other_images_is_refused(shape: tuple[int, ...]) -> None:
    from common.learning.framework import keras
    from common.learning.keras_learner import KerasLearner

    with pytest.raises(ConfigError, match="square RGB"):
        KerasLearner(keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(1)]))


def test_a_model_that_gives_no_single_probability_is_refused() -> None:
    from common.learning.framework import keras
    from common.learning.keras_learner import KerasLearner

    with pytest.raises(ConfigError, match="one probability"):
        KerasLearner(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]))


def test_wrong_options_are_named_without_loading_tensorflow() -> None:
    code = """
import sys
from common.errors import ConfigError
from common.learning.models import mobilenet_v2
try:
    mobilenet_v2({"augmentation": {"rotatoin": 3}})
except ConfigError as error:
    print(error, "tensorflow" in sys.modules)
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout == (
        "options of mobilenet_v2: unknown key 'augmentation.rotatoin'; did you mean 'rotation'? False\n"
    )
