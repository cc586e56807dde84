"""Models as users write them: what they keep, and what is said when they are built."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.blobs import BlobStore
from common.errors import ConfigError, LinkError
from common.learning.seam import FileLearner, build
from common.plan import ModelChoice
from common.stopping import Stop
from coordinator.config import read_config
from coordinator.initial import make_initial

pytestmark = [
    pytest.mark.tensorflow,
    # Keras reads TensorFlow's variables in a way that NumPy 2 discourages.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SIZE = 16
PIXELS = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)


def network(*first: Any, last: Any = None) -> Any:
    from common.learning.framework import keras

    layers = keras.layers
    body = [layers.Conv2D(4, 3, strides=2, name="body"), layers.GlobalMaxPooling2D()]
    head = layers.Dense(1, activation="sigmoid", name="head")
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *first, *body, last or head])


def learner(*first: Any, last: Any = None) -> FileLearner:
    from common.learning.keras_learner import KerasLearner

    return KerasLearner(network(*first, last=last))


def functional(head: Callable[[Any], Any]) -> Any:
    """A functional model with `head` behind its pooling."""
    from common.learning.framework import keras

    given = keras.Input((SIZE, SIZE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(given))
    return keras.Model(given, head(pooled))


# ---- values a model was built with ----------------------------------------------------------


def test_pretrained_values_are_kept_and_all_else_is_drawn_by_the_seed() -> None:
    from common.learning.keras_learner import KerasLearner

    model = network()
    kernel = np.random.default_rng(1).normal(size=(3, 3, 3, 4)).astype(np.float32)
    model.get_layer("body").set_weights([kernel, np.arange(4, dtype=np.float32)])
    own = KerasLearner(model)

    one, other = own.initial(1), own.initial(2)
    own.predict(one, PIXELS)

    for found in (one, other, own.initial(3)):
        np.testing.assert_array_equal(found[0], kernel)
        np.testing.assert_array_equal(found[1], range(4))
    assert not np.array_equal(one[2], other[2])
    np.testing.assert_array_equal(own.initial(1)[2], one[2])


def adapted(scale: int) -> Any:
    from common.learning.framework import keras

    norm = keras.layers.Normalization(axis=-1)
    norm.adapt(PIXELS.astype(np.float32) / scale)
    return norm


def test_an_adapted_layer_keeps_what_it_was_adapted_to() -> None:
    own = learner(adapted(1))
    mean, variance = own.initial(0)[:2]
    np.testing.assert_allclose(mean, PIXELS.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(variance, PIXELS.var(axis=(0, 1, 2)), rtol=1e-3)


def test_what_the_coordinator_adapted_to_beats_what_a_device_adapted_to() -> None:
    coordinator, device = learner(adapted(1)), learner(adapted(7))
    start = coordinator.initial(0)
    expected = coordinator.predict(start, PIXELS)

    assert not np.allclose(device.predict(device.initial(0), PIXELS), expected)
    np.testing.assert_allclose(device.predict(start, PIXELS), expected, rtol=1e-5)


def scaled(_options: Mapping[str, Any]) -> FileLearner:
    """A model with a random layer of the user's own, of which nobody knows the initializer."""
    from common.learning.framework import keras

    class Scaling(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
        def build(self, shape: Any) -> None:
            self.factors = self.add_weight(shape=shape[1:], initializer="glorot_uniform", name="factors")

        def call(self, pixels: Any) -> Any:
            return pixels * self.factors

    return learner(Scaling())


def test_a_users_random_layer_has_the_same_values_in_every_build() -> None:
    models = {"scaled": "tests.common.test_own_models:scaled"}
    one, other = (build(ModelChoice(name="scaled"), models).initial(5) for _ in range(2))
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first, second)


# ---- what is said when it is built ----------------------------------------------------------


@pytest.mark.parametrize("activation", [None, "relu", "hard_sigmoid", "tanh", "softmax"])
def test_a_head_that_gives_no_probability_is_refused_when_it_is_built(activation: str | None) -> None:
    from common.learning.framework import keras
    from common.learning.keras_learner import KerasLearner

    with pytest.raises(ConfigError, match="gives no probability; end it in a sigmoid"):
        learner(last=keras.layers.Dense(1, activation=activation))
    with pytest.raises(ConfigError, match="gives no probability; end it in a sigmoid"):
        KerasLearner(functional(keras.layers.Dense(1, activation=activation)))


def test_every_way_to_write_a_probability_is_accepted() -> None:
    from common.learning.framework import keras
    from common.learning.keras_learner import KerasLearner

    dense, layers = keras.layers.Dense, keras.layers
    inner = keras.Sequential([keras.Input((4,)), dense(1, activation="sigmoid")])
    heads: list[Callable[[Any], Any]] = [
        dense(1, activation="sigmoid"),
        lambda x: layers.Activation("sigmoid")(dense(1)(x)),
        lambda x: layers.Reshape((1,))(dense(1, activation="sigmoid")(x)),
        lambda x: keras.ops.sigmoid(dense(1)(x)),
        lambda x: dense(2, activation="softmax")(x)[:, 1:],
        inner,
    ]
    for head in heads:
        probabilities = (own := KerasLearner(functional(head))).predict(own.initial(0), PIXELS % 3)
        assert ((probabilities > 0) & (probabilities < 1)).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_another_precision_is_refused_when_it_is_built(policy: str) -> None:
    from common.learning.framework import keras

    keras.config.set_dtype_policy(policy)
    try:
        with pytest.raises(ConfigError, match=r"computes in b?float(16|64), .* build the model in float32"):
            learner(last=keras.layers.Dense(1, activation="sigmoid", dtype="float32"))
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_layer_that_cannot_be_made_anew_is_refused_when_it_is_built() -> None:
    from common.learning.framework import keras

    class Scale(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def call(self, pixels: Any) -> Any:
            return pixels * self.by

    with pytest.raises(ConfigError, match=r"'scale' of class Scale cannot be made anew .* let Scale\.get_config"):
        learner(Scale(0.1))
    with pytest.raises(ConfigError, match=r"of class Lambda cannot be made anew .* take Rescaling"):
        learner(keras.layers.Lambda(lambda pixels: pixels / 255))


# ---- built-in models ------------------------------------------------------------------------


def test_the_forerunners_spelling_is_the_same_model(tmp_path: Path) -> None:
    options = {"image_size": SIZE}
    one, other = (build(ModelChoice(name=name, options=options), {}) for name in ("extra_dense_CNN", "extra_dense_cnn"))
    assert one.spec() == other.spec()
    path = tmp_path / "coordinator.yaml"
    path.write_text(f"federation: brain\nstate: {tmp_path}\nmodel: {{name: extra_dense_CNN}}\n")
    assert read_config(path).model.name == "extra_dense_cnn"


def test_imagenet_weights_without_a_network_name_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    path = tmp_path / "coordinator.yaml"
    path.write_text(
        f"federation: brain\nstate: {tmp_path}\ninitial: {{source: random}}\n"
        "model: {name: mobilenet_v2, options: {image_size: 32}}\n"
    )
    with pytest.raises(LinkError) as error:
        make_initial(path, read_config(path), BlobStore(tmp_path / "blobs"), Stop())
    said = capfd.readouterr().err
    assert error.value.exit_code == 69
    assert "imagenet cannot be downloaded" in said
    assert "name it: weights: /path/to/the/file.h5" in said
    assert "Traceback" not in said
