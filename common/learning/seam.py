"""The seam between fedpi and a learning framework: implement `Learner`, name its factory in the configuration.

A factory is any function `(options: Mapping[str, Any]) -> Learner`, named `package.module:function`
under `models:` in the configuration; the built-in models are written the same way. A loader is any
function `(data: DataConfig, image_size: int) -> Site`. This module loads no framework.
"""

import importlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from common.config import DataConfig
from common.errors import ConfigError, DataError
from common.learning.outline import Layer
from common.plain_text import printable
from common.plan import ModelChoice, Training
from common.python import missing_folder
from common.weights import Spec, Tensor

Images: TypeAlias = NDArray[np.uint8]
Labels: TypeAlias = NDArray[np.int64]
Variant: TypeAlias = Literal["float32", "float16", "dynamic", "int8"]
"""What a TFLite file stores and computes in: see `conversion.convert`."""

BUILT_IN_MODELS: Mapping[str, str] = {
    "simple_cnn": "common.learning.models:simple_cnn",
    "extra_dense_cnn": "common.learning.models:extra_dense_cnn",
    "mobilenet_v2": "common.learning.models:mobilenet_v2",
    "numpy": "common.learning.numpy_learner:numpy_learner",
}
SPELLINGS: Mapping[str, str] = {"extra_dense_CNN": "extra_dense_cnn"}
"""Names of built-in models as people know them from elsewhere."""
DEFAULT_LOADER = "common.learning.images:load_site"
FRAMEWORK = frozenset({"tensorflow", "keras"})
LEARNING = "install fedpi[learning]"


@dataclass(frozen=True)
class Examples:
    """Images `[n, height, width, 3]` uint8 RGB and labels `[n]`, 1 for the positive one; names for reports."""

    images: Images
    labels: Labels
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Site:
    """A site's data: what it trains on, what it never trains on, and one sentence for each file it skipped."""

    train: Examples
    unseen: Examples
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """The outcome of a local training: weights in the order of the spec, and metrics of the last epoch."""

    weights: list[Tensor]
    num_examples: int
    metrics: dict[str, float] = field(default_factory=dict)


OnEpoch: TypeAlias = Callable[[int, Mapping[str, float]], None]
"""Called after each epoch with the number of epochs done (from 1) and its metrics."""


class Learner(Protocol):
    """A model that can be trained. Weights are lists of arrays in the order of `spec`."""

    image_size: int
    """Height and width in pixels of the images it takes; 0 where it takes none."""

    def spec(self) -> Spec:
        """Names, shapes and dtypes of all tensors that the federation shares."""

    def initial(self, seed: int) -> list[Tensor]:
        """Weights to start from: pretrained ones where the options name some, else random by `seed`."""

    def read(self, path: Path) -> list[Tensor]:
        """Read weights from a file in the framework's own format. Raises DataError that names what does not fit."""

    def train(self, weights: list[Tensor], site: Site, training: Training, on_epoch: OnEpoch) -> Trained:
        """Train on `site.train` from `weights`; the same arguments give the same bytes. Raises WorkError."""

    def predict(self, weights: list[Tensor], images: Images) -> NDArray[np.float64]:
        """Probabilities `[n]` of the positive label."""

    def export(self, weights: list[Tensor], folder: Path) -> Path:
        """Write `model.tflite` and `model.keras` into `folder`; returns the TFLite file. Raises WorkError."""


@runtime_checkable
class FileLearner(Learner, Protocol):
    """A learner whose weights go into files of the framework's own: what the offline commands need besides."""

    def save(self, weights: list[Tensor], path: Path) -> None:
        """Write `weights` as the kind of file that the name of `path` ends in. Raises ConfigError or WorkError."""

    def lay_over(self, weights: list[Tensor], path: Path) -> tuple[list[Tensor], int]:
        """Put the tensors of a file over those of the same layer and shape; returns how many there were as well.

        A tensor that the file does not have comes back as the same object. Raises DataError that names the file.
        """

    def convert(self, weights: list[Tensor], variant: Variant, images: Images) -> bytes:
        """Convert to a TFLite variant, calibrated on `images` where it is int8. Raises ConfigError or WorkError."""


@runtime_checkable
class Describing(Protocol):
    """A learner that can say which layers it has, for comparison with those that a file describes."""

    def outline(self) -> Layer | None:
        """Return the layers; None where these cannot be described."""


def resolve(entry: str, key: str) -> Callable[..., Any]:
    """Import `package.module:function`; raises ConfigError that names the configuration's `key`."""
    module, _, name = entry.partition(":")
    if not module or not name:
        raise ConfigError(f"{key}: {entry!r} is not of the form 'package.module:function'")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"{key}: cannot import {module!r} ({error}); {_cure(error)}") from error
    except AttributeError as error:
        raise ConfigError(f"{key}: {module!r} has no function {name!r}") from error
    if not callable(found):
        raise ConfigError(f"{key}: {entry!r} is not a function")
    return found  # type: ignore[no-any-return]


def _cure(error: ImportError) -> str:
    if error.name in FRAMEWORK:
        return LEARNING
    if (folder := missing_folder()) is not None:
        return f"python_path names {folder}, which is no folder here; correct it"
    return "check the name, and name its folder under python_path"


def build(choice: ModelChoice, models: Mapping[str, str]) -> Learner:
    """Build the learner that `choice` names: a built-in model, or one of `models` from this machine's configuration.

    A peer can only choose among the names that this machine knows, never name code to run.
    Raises ConfigError for an unknown name or wrong options.
    """
    known, choice = {**BUILT_IN_MODELS, **models}, spell(choice, models)
    if choice.name not in known:
        raise ConfigError(
            f"model {choice.name!r} is not known here; known are {', '.join(sorted(known))} (add yours under 'models')"
        )
    factory = resolve(known[choice.name], f"models.{choice.name}")
    state = random.getstate()
    random.seed(choice.name)  # Keras seeds its initializers from it: a model is built with the same values everywhere
    try:
        learner: Learner = factory(choice.options)
    except ImportError as error:  # the built-in models load the framework once their options are checked
        if error.name not in FRAMEWORK:
            raise
        raise ConfigError(f"models.{choice.name}: {error}; {LEARNING}") from error
    finally:
        random.setstate(state)
    return learner


def spell(choice: ModelChoice, models: Mapping[str, str]) -> ModelChoice:
    """Name a built-in model as it is named here, unless `models` has one of the other name."""
    name = choice.name if choice.name in models else SPELLINGS.get(choice.name, choice.name)
    return ModelChoice(name=name, options=choice.options)


def load(data: DataConfig, image_size: int) -> Site:
    """Load a site's data through the configured loader. Raises ConfigError or DataError."""
    site = resolve(data.loader or DEFAULT_LOADER, "data.loader")(data, image_size)
    if not isinstance(site, Site):
        raise DataError(f"data.loader: {data.loader!r} returns {type(site).__name__}, not common.learning.seam.Site")
    skipped = tuple(printable(str(sentence)) for sentence in site.skipped)
    return Site(_checked(site.train, data), _checked(site.unseen, data), skipped)


def _checked(examples: Examples, data: DataConfig) -> Examples:
    """Refuse labels that no learner knows; give them the type of `Labels`."""
    labels = np.asarray(examples.labels)
    if labels.ndim != 1 or len(labels) != len(examples.images):
        raise DataError(
            f"data.loader: {data.loader!r} returns labels {labels.shape} for {len(examples.images)}"
            " images; return one label for each"
        )
    if others := sorted({str(label) for label in labels.tolist() if label not in (0, 1)}):
        raise DataError(
            f"data.loader: {data.loader!r} returns the labels {', '.join(others[:5])}; until now only 0 and 1 can be"
            " learnt: map yours to them"
        )
    return Examples(examples.images, labels.astype(np.int64), examples.names)
