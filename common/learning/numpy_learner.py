"""A trainer without TensorFlow behind the same seam: for tests, and for benchmarks of everything but training."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.config import Config, DataConfig, convert
from common.errors import ConfigError, DataError, WorkError
from common.learning import weight_files
from common.learning.seam import Examples, Images, OnEpoch, Site, Trained
from common.plan import Training
from common.weights import Spec, Tensor, TensorSpec, difference, spec_of

Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]


class NumpyOptions(Config, frozen=True):
    """Options of `numpy_learner`. The defaults make a model of 9.04 MB."""

    tensors: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 60
    parameters: Annotated[int, msgspec.Meta(ge=1, le=2**31)] = 2_260_000
    """Of all tensors together, in float32: shared out evenly, the first tensors take what is left over."""
    frozen_tensors: Count = 0
    """How many of the first tensors a training leaves as they are."""
    work: Literal["add", "noise"] = "add"
    """What an epoch adds to every other tensor: a constant that follows from the plan's seed, or numbers from -0.5
    to 0.5 drawn by it, so that no two chunks of an update are alike."""
    sleep_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 0.0
    """Seconds that an epoch lasts."""
    fail: bool = False
    """Whether every training fails."""


class SiteOptions(Config, frozen=True):
    """Options of `no_images`."""

    count: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 10
    unseen: Count = 0


class NumpyLearner:
    """Adds a constant where others learn: the same arguments give the same bytes on any machine."""

    image_size = 0

    def __init__(self, options: NumpyOptions) -> None:
        """Take options that hold together (see `numpy_learner`)."""
        self._options = options

    def spec(self) -> Spec:
        """Name the tensors `tensor-000` and so on."""
        size, left = divmod(self._options.parameters, self._options.tensors)
        return tuple(
            TensorSpec(f"tensor-{place:03d}", (size + (place < left),), "float32")
            for place in range(self._options.tensors)
        )

    def initial(self, seed: int) -> list[Tensor]:
        """Draw from 0 to 1 by `seed`."""
        rng = np.random.Generator(np.random.PCG64(seed))
        return [rng.random(tensor.shape, np.float32) for tensor in self.spec()]

    def read(self, path: Path) -> list[Tensor]:
        """Read a file of arrays by tensor name. Raises DataError."""
        found = weight_files.read(path)
        names = [tensor.name for tensor in self.spec()]
        if missing := [name for name in names if name not in found]:
            raise DataError(f"{path}: does not fit the model: it has no tensor {missing[0]!r}")
        tensors = [found[name] for name in names]
        if (reason := difference(self.spec(), spec_of(names, tensors))) is not None:
            raise DataError(f"{path}: does not fit the model: {reason}")
        return tensors

    def train(self, weights: list[Tensor], site: Site, training: Training, on_epoch: OnEpoch) -> Trained:
        """Do the work of the options, once an epoch. Raises WorkError where the options say so."""
        if self._options.fail:
            raise WorkError("this trainer was told to fail")
        rng = np.random.Generator(np.random.PCG64(training.seed))
        step = np.float32((training.seed % 1000 + 1) / 1024)
        trained = [np.array(tensor, np.float32) for tensor in weights]
        metrics: dict[str, float] = {}
        for epoch in range(1, training.epochs + 1):
            time.sleep(self._options.sleep_s)
            for tensor in trained[self._options.frozen_tensors :]:
                noise = (
                    rng.random(tensor.shape, np.float32) - np.float32(0.5) if self._options.work == "noise" else step
                )
                np.add(tensor, noise, out=tensor)
            metrics = {"loss": 1 / (1 + epoch)}
            on_epoch(epoch, metrics)
        return Trained(list(trained), len(site.train), metrics)

    def predict(self, weights: list[Tensor], images: Images) -> NDArray[np.float64]:
        """Say 0.5 of every image: this model looks at none."""
        del weights
        return np.full(len(images), 0.5)

    def export(self, weights: list[Tensor], folder: Path) -> Path:
        """Raise WorkError: there is nothing to convert."""
        del weights, folder
        raise WorkError("the numpy model has no TFLite form; choose simple_cnn or mobilenet_v2 to export one")


def numpy_learner(options: Mapping[str, Any]) -> NumpyLearner:
    """Build the trainer. Raises ConfigError for wrong options."""
    chosen = convert(dict(options), NumpyOptions, "options of numpy")
    if chosen.parameters < chosen.tensors:
        raise ConfigError(
            f"options of numpy: {chosen.parameters} parameters do not fill {chosen.tensors} tensors; lower 'tensors'"
        )
    return NumpyLearner(chosen)


def no_images(data: DataConfig, image_size: int) -> Site:
    """Load a site of `options.count` examples without pixels, of both labels. Raises ConfigError for wrong options."""
    chosen = convert(dict(data.options), SiteOptions, "data.options")
    return Site(_examples(chosen.count, image_size), _examples(chosen.unseen, image_size))


def _examples(count: int, image_size: int) -> Examples:
    images = np.zeros((count, image_size, image_size, 3), np.uint8)
    return Examples(images, np.arange(count, dtype=np.int64) % 2)
