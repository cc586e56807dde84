"""How good a model is on the images that every site holds back: measured by the demo, who owns all folders."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.config import DataConfig
from common.learning.evaluation import Evaluation, evaluate, roc_points
from common.learning.seam import Learner, Site, load
from common.weights import Tensor, unpack


class Assessment(msgspec.Struct, frozen=True, kw_only=True):
    """A model on each site's unseen images, and on all of them together."""

    sites: dict[str, Evaluation]
    together: Evaluation
    roc: list[tuple[float, float]]


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of several models on the same images, averaged; a figure that one of them lacks is None."""

    count: int
    """Images that each was measured on."""
    accuracy: float | None
    auc: float | None
    loss: float | None
    missed: float
    false_alarms: float


class Alone(msgspec.Struct, frozen=True, kw_only=True):
    """What each site comes to by itself: its model on the unseen images of all sites, and the mean over sites."""

    sites: dict[str, Assessment]
    together: Means


class Unseen:
    """The sites, and the images that they hold back."""

    def __init__(self, sites: dict[str, DataConfig], image_size: int) -> None:
        self.sites: dict[str, Site] = {site: load(data, image_size) for site, data in sites.items()}

    def predict(self, learner: Learner, weights: list[Tensor]) -> dict[str, NDArray[np.float64]]:
        """Return the probabilities that `weights` give, by site."""
        return {name: learner.predict(weights, site.unseen.images) for name, site in self.sites.items()}

    def assess(self, probabilities: dict[str, NDArray[np.float64]]) -> Assessment:
        """Measure probabilities by the labels."""
        labels = np.concatenate([site.unseen.labels for site in self.sites.values()])
        pooled = np.concatenate([probabilities[name] for name in self.sites])
        return Assessment(
            sites={name: evaluate(probabilities[name], site.unseen.labels) for name, site in self.sites.items()},
            together=evaluate(pooled, labels),
            roc=roc_points(pooled, labels),
        )

    def assess_alone(self, learner: Learner, models: Mapping[str, list[Tensor]]) -> Alone:
        """Measure the model that each site has by itself on the unseen images of all."""
        found = {name: self.assess(self.predict(learner, weights)) for name, weights in models.items()}
        return Alone(sites=found, together=_means([model.together for model in found.values()]))


def read_weights(learner: Learner, body: Path) -> list[Tensor]:
    """Unpack the weights in `body`, as the coordinator stores them."""
    return unpack(learner.spec(), body.read_bytes())


def _means(found: list[Evaluation]) -> Means:
    return Means(
        count=found[0].count,
        accuracy=_mean([e.accuracy for e in found]),
        auc=_mean([e.auc for e in found]),
        loss=_mean([e.loss for e in found]),
        missed=sum(e.false_negatives for e in found) / len(found),
        false_alarms=sum(e.false_positives for e in found) / len(found),
    )


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
