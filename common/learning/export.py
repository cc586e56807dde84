"""A trained Keras model as TFLite for the fleet, and the measure of how far the two agree.

Only `write` needs TensorFlow; `agreement` runs on the interpreter that the devices have.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, DataError, WorkError
from common.files import write_atomic
from common.learning.quiet import quiet
from common.learning.seam import Images

INTERPRETERS = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")


@dataclass(frozen=True)
class Agreement:
    """How far TFLite's probabilities are from Keras's: the largest distance, and images with another label."""

    images: int
    max_difference: float
    other_labels: int


def write(model: Any, folder: Path) -> Path:
    """Write `model.keras` and `model.tflite` into `folder`; returns the latter.

    The TFLite file takes one float32 image `[1, size, size, 3]` of pixels 0..255, gives `[1, 1]`, and
    holds built-in operators only, so that the bare interpreter of a device runs it. Raises WorkError.
    """
    from common.learning.framework import ConverterError, tf

    shape = (1, *model.input_shape[1:])
    call = tf.function(lambda pixels: model(pixels, training=False), (tf.TensorSpec(shape, tf.float32, "pixels"),))
    held = tf.Module()  # the converter finds the variables to freeze through it: it does not know Keras 3's
    held.variables_to_freeze = [variable.value for variable in model.variables]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model.save(folder / "model.keras")
        with quiet():
            converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()], held)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            content = converter.convert()
    except ConverterError as error:
        raise WorkError(f"the model has no TFLite form with built-in operators: {str(error)[:300]}") from error
    except OSError as error:
        raise WorkError(f"{folder}: cannot write the model: {error.strerror or error}") from error
    path = folder / "model.tflite"
    write_atomic(path, content)
    return path


def agreement(probabilities: NDArray[np.float64], path: Path, images: Images) -> Agreement:
    """Compare Keras's `probabilities` `[n]` of `images` with those of the TFLite file at `path`.

    Raises ConfigError where no interpreter is installed, DataError where the file is none.
    """
    served = predict(path, images)
    differences = np.abs(served - probabilities)
    others = (served >= 0.5) != (probabilities >= 0.5)
    return Agreement(len(images), float(differences.max(initial=0.0)), int(others.sum()))


def predict(path: Path, images: Images) -> NDArray[np.float64]:
    """Probabilities `[n]` by the TFLite file at `path`. Raises as `agreement` does."""
    interpreter = _interpreter(path)
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    probabilities = np.empty(len(images))
    for place, image in enumerate(images):
        interpreter.set_tensor(given["index"], image[None].astype(np.float32))
        interpreter.invoke()
        probabilities[place] = interpreter.get_tensor(result["index"])[0, 0]
    return probabilities


def _interpreter(path: Path) -> Any:
    for name in INTERPRETERS:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        try:
            with quiet():
                interpreter = module.Interpreter(str(path))
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise DataError(f"{path}: not a TFLite model: {error}") from error
        return interpreter
    raise ConfigError("no TFLite interpreter is installed; install fedpi[inference]")
