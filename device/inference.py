"""A TFLite model in LiteRT: the bytes of an image in, label and probability out. Never loads TensorFlow."""

import importlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, DataError
from common.learning.decoding import decode_image
from common.learning.export import INTERPRETERS
from common.learning.quiet import quiet
from common.learning.seam import Images
from common.learning.tflite_files import check_result

THRESHOLD = 0.5


@dataclass(frozen=True)
class Outcome:
    """What the model says of one image: `probability` is that of the positive label, whatever `label` is."""

    label: str
    probability: float
    milliseconds: float
    """Decoding and inference together."""


class Classifier:
    """One release, ready to classify. Belongs to the thread that uses it.

    `content` is a TFLite model that takes one image `[1, size, size, 3]` of pixels 0..255 as float32
    or uint8, and gives the positive label's probability. `labels` are the negative and the positive
    one. Raises ConfigError where the interpreter is not installed, DataError for any other model.
    """

    def __init__(self, release: str, content: bytes, labels: Sequence[str], threads: int) -> None:
        self.release = release
        self._labels = tuple(labels)
        if len(self._labels) != 2:
            raise DataError(f"release {release}: it has {len(self._labels)} labels; two are needed")
        _, interpreter = find_interpreter()
        try:
            with quiet():
                self._interpreter = interpreter(model_content=content, num_threads=threads)
                self._interpreter.allocate_tensors()
            self._given = self._interpreter.get_input_details()[0]
            self._result = self._interpreter.get_output_details()[0]
            self.image_size = self._fitting_size()
            # A model can load and still not run; the first run also packs the weights, so it is the slowest.
            self._probability(np.zeros((self.image_size, self.image_size, 3), np.uint8))
            check_result(content)
        except (ValueError, RuntimeError) as error:
            raise DataError(f"release {release}: not a TFLite model that runs here: {str(error)[:300]}") from error
        except DataError as error:
            raise DataError(f"release {release}: {error}") from error

    @property
    def positive(self) -> str:
        """The label whose probability the model gives."""
        return self._labels[1]

    def classify(self, data: bytes) -> Outcome:
        """Classify the bytes of one image file; raises DataError with the reason where that cannot be done."""
        started = time.perf_counter()
        pixels = decode_image(data, self.image_size)
        try:
            probability = self._probability(pixels)
        except (ValueError, RuntimeError) as error:
            raise DataError(f"release {self.release} failed on it: {str(error)[:300]}") from error
        label = self._labels[probability >= THRESHOLD]
        return Outcome(label, probability, (time.perf_counter() - started) * 1000)

    def _fitting_size(self) -> int:
        shape, dtype = tuple(self._given["shape"]), np.dtype(self._given["dtype"])
        if len(shape) != 4 or shape[0] != 1 or shape[1] != shape[2] or shape[3] != 3:
            raise DataError(f"the model takes {list(map(int, shape))} where one square RGB image is needed")
        if dtype not in {np.dtype(np.float32), np.dtype(np.uint8)}:
            raise DataError(f"the model takes {dtype} where float32 or uint8 pixels are needed")
        if np.prod(self._result["shape"]) != 1:
            raise DataError(f"the model gives {list(map(int, self._result['shape']))} where one probability is needed")
        return int(shape[1])

    def _probability(self, pixels: Images) -> float:
        self._interpreter.set_tensor(self._given["index"], _quantised(pixels[None], self._given))
        self._interpreter.invoke()
        value = float(_real(self._interpreter.get_tensor(self._result["index"]), self._result).item())
        if not math.isfinite(value) or not -0.01 <= value <= 1.01:  # a quantised 1 may come back a little above it
            raise DataError(f"the model gave {value:g} where a probability is needed")
        return min(max(value, 0.0), 1.0)


def find_interpreter() -> tuple[str, Any]:
    """Load pillow and the interpreter that is installed; returns the latter's package and class. Raises ConfigError."""
    try:
        from PIL import Image  # here, so that the first image does not wait for it
    except ImportError as error:
        raise ConfigError("pillow, which decodes images, is not installed; install fedpi[inference]") from error
    Image.preinit()
    for name in INTERPRETERS:
        try:
            return name.partition(".")[0], importlib.import_module(name).Interpreter
        except ImportError:  # not installed, or built for another NumPy
            continue
    raise ConfigError("no TFLite interpreter is installed; install fedpi[inference]")


def _quantised(pixels: NDArray[np.uint8], details: dict[str, Any]) -> NDArray[Any]:
    """Pixels 0..255 as the model's input tensor takes them (`real = scale * (quantised - zero)`, TFLite's scheme)."""
    if np.dtype(details["dtype"]).kind == "f":
        return pixels.astype(np.float32)
    scale, zero = details["quantization"]
    if scale in {0.0, 1.0} and zero == 0:
        return pixels
    quantised: NDArray[np.uint8] = np.clip(np.rint(pixels / scale + zero), 0, 255).astype(np.uint8)
    return quantised


def _real(result: NDArray[Any], details: dict[str, Any]) -> NDArray[Any]:
    """Read an output tensor, which may be quantised by the same scheme."""
    scale, zero = details["quantization"]
    return result if scale == 0 else (result.astype(np.float32) - np.float32(zero)) * np.float32(scale)
