"""The course of a local training, whatever the framework: what is held out, how many steps, when to stop. Pure."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.learning.seam import Examples, Labels
from common.plan import Training


@dataclass(frozen=True)
class Course:
    """How long a training lasts at most: `steps` of the optimizer, `per_epoch` of them an epoch but for the last."""

    epochs: int
    steps: int
    per_epoch: int

    def steps_of(self, epoch: int) -> int:
        """Steps of `epoch`, counted from 1."""
        return min(self.per_epoch, self.steps - (epoch - 1) * self.per_epoch)


def chart(training: Training, num_examples: int) -> Course:
    """Lay out a training on `num_examples` examples: where `steps` are set, they count and not `epochs`."""
    per_epoch = max(-(-num_examples // training.batch_size), 1)
    steps = training.steps or training.epochs * per_epoch
    return Course(-(-steps // per_epoch), steps, per_epoch)


def seeded(training: Training, device: str) -> Training:
    """Give a device its own shuffling and augmentation in a round, the same in every repetition of the run."""
    offset = int.from_bytes(device.encode(), "big") % 1_000_003
    return msgspec.structs.replace(training, seed=training.seed * 1_000_003 + offset)


def batches(count: int, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Shuffle the places 0 to `count` - 1 and give them batch by batch."""
    order = rng.permutation(count)
    for start in range(0, count, batch_size):
        yield order[start : start + batch_size]


def hold_out(examples: Examples, share: float) -> tuple[Examples, Examples]:
    """Part `examples` into what is trained on and a `share` of each label to validate on.

    Which ones depends on their pixels alone, so that no round trains on what another one validates
    on, and exact copies are neighbours. A label of two examples or more keeps one on either side.
    """
    if share == 0:
        return examples, select(examples, np.zeros(0, np.int64))
    ranked = sorted(range(len(examples)), key=lambda place: _digest(examples, place))
    held: list[int] = []
    for label in (0, 1):
        places = [place for place in ranked if examples.labels[place] == label]
        count = min(max(round(share * len(places)), 1), len(places) - 1)
        held += places[: max(count, 0)]
    is_held = np.zeros(len(examples), np.bool_)
    is_held[held] = True
    return select(examples, np.flatnonzero(~is_held)), select(examples, np.flatnonzero(is_held))


def select(examples: Examples, places: NDArray[np.int64]) -> Examples:
    """Take the examples at `places`."""
    names = tuple(examples.names[place] for place in places) if examples.names else ()
    return Examples(examples.images[places], examples.labels[places], names)


def balance(labels: Labels) -> NDArray[np.float32]:
    """Weight each example `[n]` so that both labels weigh alike and the mean weight is 1; 1 where there is one label.

    n / (2 n_label), as King and Zeng, "Logistic regression in rare events data" (2001), with even prior.
    """
    counts = np.bincount(labels, minlength=2)
    if not counts.all():
        return np.ones(len(labels), np.float32)
    weights: NDArray[np.float32] = (len(labels) / (2 * counts))[labels].astype(np.float32)
    return weights


@dataclass(frozen=True)
class Patience:
    """Early stopping: how the validation loss has gone so far. `limit` 0 never stops."""

    limit: int
    best: float = float("inf")
    epoch: int = 0
    """The epoch, from 1, whose validation loss is the best."""
    waited: int = 0

    @property
    def is_over(self) -> bool:
        """Whether to stop here."""
        return 0 < self.limit <= self.waited

    def after(self, epoch: int, loss: float) -> "Patience":
        """Take note of an epoch's validation loss."""
        if loss < self.best:
            return Patience(self.limit, loss, epoch)
        return replace(self, waited=self.waited + 1)


def _digest(examples: Examples, place: int) -> bytes:
    return hashlib.sha256(examples.images[place].tobytes()).digest()
