"""How good a global model is on the images that every site holds back: measured by the demo, who owns all folders."""

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.config import DataConfig
from common.learning.evaluation import Evaluation, evaluate, roc_points
from common.learning.seam import Examples, Learner, load
from common.weights import unpack


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """A model on each site's unseen images, and on all of them together."""

    sites: dict[str, Evaluation]
    together: Evaluation
    roc: list[tuple[float, float]]


class Unseen:
    """The images that every site holds back."""

    def __init__(self, sites: dict[str, DataConfig], image_size: int) -> None:
        self.sites: dict[str, Examples] = {site: load(data, image_size).unseen for site, data in sites.items()}

    def predict(self, learner: Learner, body: Path) -> dict[str, NDArray[np.float64]]:
        """Return the probabilities that the packed weights in `body` give, by site."""
        weights = unpack(learner.spec(), body.read_bytes())
        return {site: learner.predict(weights, examples.images) for site, examples in self.sites.items()}

    def assess(self, probabilities: dict[str, NDArray[np.float64]]) -> Assessment:
        """Measure probabilities by the labels."""
        labels = np.concatenate([examples.labels for examples in self.sites.values()])
        pooled = np.concatenate([probabilities[site] for site in self.sites])
        return Assessment(
            sites={site: evaluate(probabilities[site], examples.labels) for site, examples in self.sites.items()},
            together=evaluate(pooled, labels),
            roc=roc_points(pooled, labels),
        )
