"""What the federation's model is held against: the initial model, and each site trained by itself.

Both need nothing of the rounds but the initial weights, so they are measured in a thread beside the rounds. TensorFlow
and the images are loaded before, while the coordinator makes these weights.
"""

import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from common.config import DataConfig
from common.errors import WorkError
from common.learning.seam import build
from coordinator.config import CoordinatorConfig
from coordinator.rehearsal.alone import train_alone
from coordinator.rehearsal.assessment import Alone, Assessment, Unseen, read_weights
from coordinator.rehearsal.results.simulation import Stage


class Reference:
    """Measures models on the images that the sites in `data` hold back; while it trains, its files lie below `folder`.

    A context: whoever leaves it early ends the training.
    """

    def __init__(self, config: CoordinatorConfig, data: Mapping[str, DataConfig], folder: Path) -> None:
        self._config = config
        self._data = dict(data)
        self._folder = folder
        self._has_ended = threading.Event()
        self._beside = ThreadPoolExecutor(1)
        self._preparing = self._beside.submit(self._prepare)

    def __enter__(self) -> "Reference":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._has_ended.set()
        self._beside.shutdown()

    def measure(self, initial: Path, rounds: int) -> None:
        """Begin to measure the weights in `initial`, and each site's own after the plans of as many rounds."""
        self._measuring = self._beside.submit(self._measure, initial, rounds)

    def result(self) -> tuple[Assessment, Alone]:
        """Wait for the initial model's figures and those of the sites alone. Raises ConfigError and WorkError."""
        self._preparing.result()
        return self._measuring.result()

    def predict(self, body: Path) -> dict[str, NDArray[np.float64]]:
        """Return the probabilities of the weights in `body`, by site. Waits for `result`."""
        self.result()
        return self._unseen.predict(self._learner, read_weights(self._learner, body))

    def assess(self, probabilities: dict[str, NDArray[np.float64]]) -> Assessment:
        """Measure probabilities by the labels. Waits for `result`."""
        self.result()
        return self._unseen.assess(probabilities)

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The held-back images, by site and in the order of the probabilities. Waits for `result`."""
        self.result()
        return {name: site.unseen.names for name, site in self._unseen.sites.items()}

    def _prepare(self) -> None:
        self._learner = build(self._config.model, {})
        self._unseen = Unseen(self._data, self._learner.image_size)

    def _measure(self, initial: Path, rounds: int) -> tuple[Assessment, Alone]:
        start = read_weights(self._learner, initial)
        before = self._unseen.assess(self._unseen.predict(self._learner, start))
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            stage = Stage(self._learner, self._unseen.sites, Path(folder))
            models = train_alone(self._config, stage, start, rounds, self._go_on)
        return before, self._unseen.assess_alone(self._learner, models)

    def _go_on(self, _progress: str) -> None:
        if self._has_ended.is_set():
            raise WorkError("the sites were not all trained alone: the demo has ended before")
