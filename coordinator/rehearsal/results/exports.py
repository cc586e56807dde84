"""A cell's last model as TFLite: every variant runs over the images that the fold tests."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from common.errors import ConfigError
from common.learning.seam import FileLearner, Images, Learner, Variant
from common.learning.variants import run
from common.weights import Tensor


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """A variant: its bytes, its probabilities of the fold's test images, and the median time of one of them."""

    variant: Variant
    size: int
    probabilities: Annotated[tuple[float, ...], msgspec.Meta(min_length=1)]
    max_difference: float
    """Largest distance of a probability from Keras's."""
    milliseconds: float


@dataclass(frozen=True)
class Model:
    """What is exported; `calibration` are the images that int8 measures its ranges on."""

    learner: Learner
    weights: list[Tensor]
    calibration: Images


def export(model: Model, variants: Sequence[Variant], test: Images) -> tuple[Exported, ...]:
    """Convert to each of `variants`, and run it over `test`. Raises FedpiError."""
    learner = model.learner
    if not isinstance(learner, FileLearner):
        raise ConfigError("a model that has no TFLite form cannot be measured as one; leave exports out of its row")
    expected = learner.predict(model.weights, test)
    found = []
    with tempfile.TemporaryDirectory(prefix="fedpi-export-") as folder:
        for variant in variants:
            path = Path(folder, f"{variant}.tflite")
            path.write_bytes(learner.convert(model.weights, variant, model.calibration))
            ran = run(path, test)
            exported = Exported(
                variant=variant,
                size=path.stat().st_size,
                probabilities=tuple(round(float(value), 6) for value in ran.probabilities),
                max_difference=float(np.abs(ran.probabilities - expected).max()),
                milliseconds=round(ran.milliseconds, 4),
            )
            found.append(exported)
    return tuple(found)
