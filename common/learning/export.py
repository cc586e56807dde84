"""TFLite models on the interpreter that the devices have, and the measure of how far they agree with Keras."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, DataError
from common.learning.quiet import quiet
from common.learning.seam import Images

INTERPRETERS = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter")


@dataclass(frozen=True)
class Agreement:
    """How far TFLite's probabilities are from Keras's: the largest distance, and images with another label."""

    images: int
    max_difference: float
    other_labels: int


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
    interpreter = interpret(path)
    given, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    probabilities = np.empty(len(images))
    for place, image in enumerate(images):
        interpreter.set_tensor(given["index"], image[None].astype(np.float32))
        interpreter.invoke()
        probabilities[place] = interpreter.get_tensor(result["index"])[0, 0]
    return probabilities


def interpret(path: Path, threads: int | None = None, *, is_kept: bool = False) -> Any:
    """Load a TFLite file into the interpreter that is installed. Raises as `agreement` does.

    `is_kept` keeps what every operator gave until the next run, at the cost of memory and speed.
    """
    for name in INTERPRETERS:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        options: dict[str, Any] = {}
        if is_kept:
            plain = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            options = {"experimental_preserve_all_tensors": True, "experimental_op_resolver_type": plain}
        try:
            with quiet():
                interpreter = module.Interpreter(str(path), num_threads=threads, **options)
                interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise DataError(f"{path}: not a TFLite model: {str(error)[:300]}") from error
        return interpreter
    raise ConfigError("no TFLite interpreter is installed; install fedpi[inference]")
