"""All TFLite variants of a model beside each other: size, agreement with Keras, accuracy, and time on this machine."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.errors import DataError, UsageError, WorkError
from common.files import write_atomic
from common.learning.evaluation import THRESHOLD, evaluate
from common.learning.export import interpret
from common.learning.seam import Examples, FileLearner, Images, Site, Variant
from common.weights import Tensor

THREADS = 2
TIMED_RUNS = 100


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One variant; `size` in bytes. Where `reason` says why there is none, all else is empty."""

    variant: Variant
    file: str = ""
    reason: str = ""
    size: int = 0
    size_share: float | None = None
    """Of the float32 file."""
    max_difference: float = 0.0
    """Largest distance of its probabilities from Keras's."""
    other_labels: int = 0
    accuracy: float | None = None
    auc: float | None = None
    milliseconds: float = 0.0
    """Median of one image."""


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """All variants, and what they were measured on and with."""

    variants: tuple[Measured, ...]
    keras_accuracy: float | None
    images: int
    interpreter: str
    threads: int = THREADS


@dataclass(frozen=True)
class Ran:
    """Probabilities `[n]` of a TFLite file, and the median of its milliseconds for one image."""

    probabilities: NDArray[np.float64]
    milliseconds: float


def choose(names: Sequence[str]) -> tuple[Variant, ...]:
    """Check the names of variants, all where none is given; raises ConfigError that lists those there are."""
    known: tuple[Variant, ...] = get_args(Variant)
    for name in names:
        if name not in known:
            raise UsageError(f"--variant: {name!r} is unknown; known are {', '.join(known)}")
    return tuple(variant for variant in known if variant in names) or known


def export(learner: FileLearner, weights: list[Tensor], site: Site, folder: Path, wanted: Sequence[Variant]) -> Export:
    """Write `model_VARIANT.tflite` into `folder` for each variant that the model has, and measure it.

    int8 is calibrated on the images that `site` trains on; all are measured on its unseen ones, or on
    the former where it has none. Raises ConfigError where no interpreter is installed, WorkError where the disk fails.
    """
    held = site.unseen if len(site.unseen) else site.train
    probabilities = learner.predict(weights, held.images)
    found: list[Measured] = []
    for variant in wanted:
        path = folder / f"model_{variant}.tflite"
        try:
            write_atomic(path, learner.convert(weights, variant, site.train.images))
            measured = _measure(path, variant, held, probabilities)
        except (DataError, WorkError) as error:
            measured = Measured(variant=variant, reason=str(error))
        whole = found[0].size if found and found[0].variant == "float32" else 0
        share = 1.0 if variant == "float32" else measured.size / whole if whole else None
        found.append(msgspec.structs.replace(measured, size_share=None if measured.reason else share))
    keras = evaluate(probabilities, held.labels).accuracy
    return Export(variants=tuple(found), keras_accuracy=keras, images=len(held), interpreter=_name())


def run(path: Path, images: Images) -> Ran:
    """Predict every image once, then go on until there are enough times; the first few are not counted.

    Raises ConfigError where no interpreter is installed, DataError where the file is no TFLite model.
    """
    interpreter = interpret(path, THREADS)
    given, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    probabilities, seconds = np.empty(len(images)), []
    for number in range(max(len(images), TIMED_RUNS)):
        place = number % len(images)
        interpreter.set_tensor(given, images[place][None].astype(np.float32))
        started = time.perf_counter()
        interpreter.invoke()
        seconds.append(time.perf_counter() - started)
        probabilities[place] = interpreter.get_tensor(result)[0, 0]
    return Ran(probabilities, 1000 * statistics.median(seconds[5:]))


def _measure(path: Path, variant: Variant, held: Examples, expected: NDArray[np.float64]) -> Measured:
    ran = run(path, held.images)
    figures = evaluate(ran.probabilities, held.labels)
    return Measured(
        variant=variant,
        file=str(path),
        size=path.stat().st_size,
        max_difference=float(np.abs(ran.probabilities - expected).max(initial=0.0)),
        other_labels=int(((ran.probabilities >= THRESHOLD) != (expected >= THRESHOLD)).sum()),
        accuracy=figures.accuracy,
        auc=figures.auc,
        milliseconds=ran.milliseconds,
    )


def _name() -> str:
    import importlib.util

    from common.learning.export import INTERPRETERS

    return next(
        (name.partition(".")[0] for name in INTERPRETERS if importlib.util.find_spec(name.partition(".")[0])), "none"
    )
