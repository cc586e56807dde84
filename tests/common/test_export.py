from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.errors import DataError, WorkError
from common.learning import export
from common.learning.seam import Learner, build
from common.plan import ModelChoice

# Keras reads TensorFlow's variables in a way that NumPy 2 discourages.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZE = 32
IMAGES = np.random.default_rng(0).integers(0, 256, (12, SIZE, SIZE, 3), np.uint8)


def choose(name: str, **options: Any) -> Learner:
    return build(ModelChoice(name=name, options={"image_size": SIZE, **options}), {})


@pytest.mark.tensorflow
@pytest.mark.parametrize(("name", "options"), [("simple_cnn", {"dropout": 0.5}), ("mobilenet_v2", {"weights": None})])
def test_tflite_says_what_keras_says_of_plain_pixels(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    from common.learning.framework import keras

    learner = choose(name, **options)
    start = learner.initial(0)
    # Away from 0.5, where a label hangs on the last digit.
    start[-1] = start[-1] + 1
    path = learner.export(start, tmp_path)
    probabilities = learner.predict(start, IMAGES)
    found = export.agreement(probabilities, path, IMAGES)
    assert (path.name, found.images, found.other_labels) == ("model.tflite", 12, 0)
    assert found.max_difference < 1e-4
    again = keras.models.load_model(tmp_path / "model.keras")(IMAGES.astype(np.float32)).numpy()[:, 0]
    assert np.allclose(again, probabilities, atol=1e-5)


@pytest.mark.tensorflow
def test_what_disagrees_is_counted(tmp_path: Path) -> None:
    learner = choose("simple_cnn")
    path = learner.export(learner.initial(0), tmp_path)
    served = export.predict(path, IMAGES)
    claimed = served.copy()
    claimed[3] = 0.9 if served[3] < 0.5 else 0.1
    found = export.agreement(claimed, path, IMAGES)
    assert found.other_labels == 1
    assert found.max_difference == pytest.approx(abs(claimed[3] - served[3]))


@pytest.mark.tensorflow
def test_a_model_that_needs_more_than_built_in_operators_is_refused(tmp_path: Path) -> None:
    from common.learning.framework import keras, tf
    from common.learning.keras_learner import KerasLearner

    class Odd(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
        def call(self, pixels: Any) -> Any:
            return tf.math.erfinv(pixels / 256)

    head = (keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, activation="sigmoid"))
    learner = KerasLearner(keras.Sequential([keras.Input((SIZE, SIZE, 3)), Odd(), *head]))
    with pytest.raises(WorkError, match="built-in operators"):
        learner.export(learner.initial(0), tmp_path)
    assert not (tmp_path / "model.tflite").exists()


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match=r"model\.tflite: not a TFLite model"):
        export.predict(path, IMAGES)
