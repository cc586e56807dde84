"""What 8-bit weights shift on average is taken off the biases, whatever the kernel, stride and padding."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.learning.export import interpret
from common.learning.seam import Images

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
SIZE, CHANNELS = 15, 6


def layers(keras: Any) -> dict[str, Any]:
    return {
        "same": keras.layers.Conv2D(CHANNELS, 3, padding="same"),
        "strided": keras.layers.Conv2D(CHANNELS, 3, strides=2, padding="same"),
        "valid": keras.layers.Conv2D(CHANNELS, 5, strides=3, padding="valid"),
        "depthwise": keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2),
    }


@pytest.mark.parametrize("kind", ["same", "strided", "valid", "depthwise"])
def test_corrected_biases_bring_the_mean_output_nearer_to_keras(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One weight of each channel is large, so that the others are rounded coarsely; most of an image is the same."""
    from common.learning.framework import keras
    from common.learning.keras_learner import KerasLearner

    rng = np.random.default_rng(0)
    layer = layers(keras)[kind]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, activation="sigmoid")]
    learner = KerasLearner(
        keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Rescaling(1 / 255), layer, *head])
    )
    weights = [rng.normal(0, 0.1, tensor.shape).astype(np.float32) for tensor in learner.initial(0)]
    weights[0][1, 1] += 9.0
    images: Images = np.full((16, SIZE, SIZE, 3), 180, np.uint8)
    images[:, 4:9, 4:9] = rng.integers(0, 256, (16, 5, 5, 3))

    exact = means(learner.convert(weights, "float32", images), images, tmp_path)
    after = means(learner.convert(weights, "int8", images), images, tmp_path) - exact
    monkeypatch.setattr("common.learning.conversion.correct", lambda content, *_: content)
    before = means(learner.convert(weights, "int8", images), images, tmp_path) - exact
    assert np.abs(after).mean() < 0.5 * np.abs(before).mean()


def means(content: bytes, images: Images, folder: Path) -> NDArray[np.float64]:
    """Mean of every channel that goes into the pooling of a TFLite file, over all images."""
    path = folder / "model.tflite"
    path.write_bytes(content)
    interpreter = interpret(path, is_kept=True)
    operators = interpreter._get_ops_details()  # noqa: SLF001 - LiteRT names operators nowhere else
    place = next(operator for operator in operators if operator["op_name"] == "MEAN")["inputs"][0]
    scale, zero = next(found for found in interpreter.get_tensor_details() if found["index"] == place)["quantization"]
    sums = np.zeros(1)
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None].astype(np.float32))
        interpreter.invoke()
        values = interpreter.get_tensor(place)[0].astype(np.float64)
        sums = sums + ((values - zero) * scale if scale else values).mean(axis=(0, 1))
    return sums / len(images)
