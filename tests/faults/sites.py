"""Loaders and models for a device's configuration whose training does not end well."""

import sys
from collections.abc import Mapping
from typing import Any

from common.config import DataConfig
from common.errors import DataError
from common.learning.numpy_learner import NumpyLearner, numpy_learner
from common.learning.seam import Learner, Site, build
from common.plan import ModelChoice

NEVER_S = 3600.0
LATE_S = 1.0


def no_site(data: DataConfig, image_size: int) -> Site:
    """Load nothing. Raises DataError."""
    del data, image_size
    raise DataError("the folder of the images is gone")


def endless(options: Mapping[str, Any]) -> NumpyLearner:
    """Build the numpy model, with a training that never ends."""
    return numpy_learner({**options, "sleep_s": NEVER_S})


def slow(options: Mapping[str, Any]) -> NumpyLearner:
    """Build the numpy model, with a training that lasts a second."""
    return numpy_learner({**options, "sleep_s": LATE_S})


def without_tensorflow(options: Mapping[str, Any]) -> Learner:
    """Build a Keras model on a machine that has no TensorFlow. Raises ConfigError."""
    del options  # the numpy model's
    sys.modules["tensorflow"] = sys.modules["keras"] = None  # type: ignore[assignment]  # Python's way to refuse an import
    return build(ModelChoice(name="simple_cnn"), {})


def greedy(options: Mapping[str, Any]) -> NumpyLearner:
    """Build the numpy model, and take 300 MB that are used."""
    learner = endless(options)
    learner.ballast = bytearray(b"x" * 300_000_000)  # type: ignore[attr-defined]  # only to be held
    return learner
