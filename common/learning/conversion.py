"""A trained Keras model as TFLite for the fleet. Importing this module loads TensorFlow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, DataError, WorkError
from common.files import write_atomic
from common.learning.correction import correct
from common.learning.framework import ConverterError, tf
from common.learning.quiet import quiet
from common.learning.seam import Images, Variant
from common.learning.slimming import float_operators, slim
from common.learning.tflite_files import check_result

CALIBRATION_IMAGES = 200


def write(model: Any, folder: Path) -> Path:
    """Write `model.keras` and `model.tflite` into `folder`; returns the latter.

    The TFLite file takes one float32 image `[1, size, size, 3]` of pixels 0..255, gives `[1, 1]`, and
    holds built-in operators only, so that the bare interpreter of a device runs it. Raises WorkError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        model.save(folder / "model.keras")
        content = convert(model, "float32", None)
    except OSError as error:
        raise WorkError(f"{folder}: cannot write the model: {error.strerror or error}") from error
    path = folder / "model.tflite"
    write_atomic(path, content)
    return path


def convert(model: Any, variant: Variant, images: Images | None) -> bytes:
    """Convert to TFLite; every variant takes and gives the same float32 numbers, whatever it computes in.

    `float16` stores weights in half precision and `dynamic` in 8 bits, both compute in floats where the
    interpreter has no faster way; `int8` computes in 8 bits throughout, in ranges that are measured on
    `images` `[n, size, size, 3]`, and its biases are corrected on them by the interpreter that is installed.
    Raises ConfigError where it has no images or no interpreter, WorkError with the reason where the model
    cannot be converted so.
    """
    shape = (1, *model.input_shape[1:])
    call = tf.function(lambda pixels: model(pixels, training=False), (tf.TensorSpec(shape, tf.float32, "pixels"),))
    held = tf.Module()  # the converter finds the variables to freeze through it: it does not know Keras 3's
    held.variables_to_freeze = [variable.value for variable in model.variables]
    try:
        with quiet():
            converter = tf.lite.TFLiteConverter.from_concrete_functions([call.get_concrete_function()], held)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            if variant != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if variant == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if variant == "int8":
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.representative_dataset = lambda: _calibration(images)
            content: bytes = converter.convert()
    except ConverterError as error:
        raise WorkError(
            f"the model has no {variant} TFLite form with built-in operators: {str(error)[:300]}"
        ) from error
    except RuntimeError as error:  # the quantiser's own word for an operator that it has no 8-bit form of
        raise WorkError(f"the model cannot be quantised to {variant}: {str(error)[:300]}") from error
    try:
        check_result(content)
    except DataError as error:
        raise WorkError(f"no device would serve the model: {error}") from error
    if variant == "int8" and images is not None:
        _check(content)
        content = correct(content, convert(model, "float32", None), images[:CALIBRATION_IMAGES])
    return slim(content) if variant in {"dynamic", "int8"} else content


def _check(content: bytes) -> None:
    """See that 8 bits are all that an int8 file computes in."""
    if kinds := float_operators(content):
        raise WorkError(f"TFLite has no 8-bit form of {', '.join(kinds)}, so that int8 would compute in floats there")


def _calibration(images: Images | None) -> Iterator[list[NDArray[np.float32]]]:
    if images is None or len(images) == 0:
        raise ConfigError("int8 needs images to measure its ranges on; name some, or leave int8 out")
    for image in images[:CALIBRATION_IMAGES]:
        yield [image[None].astype(np.float32)]
