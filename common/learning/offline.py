"""Training one site by itself, from files to files: no broker, no coordinator."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import msgspec

from common.config import DataConfig
from common.errors import ConfigError, DataError
from common.learning.evaluation import Evaluation, evaluate
from common.learning.recipe import Recipe
from common.learning.seam import FileLearner, Site, build, load
from common.messages import Metrics
from common.weights import Tensor

Tell: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What to train, on what, from which weight files laid over each other, and which files to write."""

    recipe: Recipe
    data: DataConfig
    out: Path
    init: tuple[Path, ...] = ()
    events: Path | None = None
    is_drawn: bool = True
    tell: Tell = field(default=lambda _sentence: None)

    @property
    def name(self) -> str:
        """What is trained, by the name of its file: `client_1` for `client_1_model.h5`."""
        stem = self.out.name.split(".")[0]
        return stem.removesuffix("_model").removesuffix("_weights") or stem


class TrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an offline training."""

    out: str
    picture: str | None
    epochs: list[Metrics]
    """The metrics of every epoch that was trained; early stopping may have kept an earlier one's weights."""
    kept: Metrics
    """The metrics of the epoch whose weights are in `out`."""
    num_examples: int
    taken: dict[str, int]
    """How many tensors came from each file of `init`, of `tensors` in all."""
    tensors: int
    unseen: Evaluation | None
    measured_on: str | None
    """The CSV or folder of the unseen images."""
    skipped: tuple[str, ...]
    seconds: float


def train(order: Order) -> TrainingReport:
    """Train and write the model, `NAME_training_history.png` beside it, and event files where they are wanted.

    Raises ConfigError, DataError and WorkError.
    """
    started = time.monotonic()
    learner = file_learner(order.recipe)
    site = load(order.data, learner.image_size)
    weights, taken = start(learner, order)
    epochs: list[Metrics] = []

    def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
        epochs.append({name: float(value) for name, value in metrics.items()})
        figures = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        order.tell(f"epoch {epoch}: {figures}")

    trained = learner.train(weights, site, order.recipe.training, on_epoch)
    learner.save(trained.weights, order.out)
    picture = order.out.with_name(f"{order.name}_training_history.png") if order.is_drawn and epochs else None
    _show(order, epochs, picture)
    return TrainingReport(
        out=str(order.out),
        picture=str(picture) if picture else None,
        epochs=epochs,
        kept=trained.metrics,
        num_examples=trained.num_examples,
        taken=taken,
        tensors=len(weights),
        unseen=_measure(learner, trained.weights, site),
        measured_on=order.data.unseen,
        skipped=site.skipped,
        seconds=time.monotonic() - started,
    )


def file_learner(recipe: Recipe) -> FileLearner:
    """Build the recipe's learner; raises ConfigError where it knows no files."""
    learner = build(recipe.model, recipe.models)
    if not isinstance(learner, FileLearner):
        raise ConfigError(f"model {recipe.model.name!r} writes and reads no files, so it cannot be used offline")
    return learner


def start(learner: FileLearner, order: Order) -> tuple[list[Tensor], dict[str, int]]:
    """Give the weights to begin with, and how many tensors each file gave; raises DataError for one that gives none."""
    weights, taken = learner.initial(order.recipe.training.seed), {}
    for path in order.init:
        before = weights
        weights, count = learner.lay_over(before, path)
        if count == 0:
            raise DataError(
                f"{path}: it has no layer of model {order.recipe.model.name!r} with the same name and shape"
            )
        taken[str(path)] = count
        values = sum(new.size for new, old in zip(weights, before, strict=True) if new is not old)
        share = values / max(sum(tensor.size for tensor in weights), 1)
        order.tell(f"{path}: {count} of {len(weights)} tensors taken over, {100 * share:.0f} % of the values")
    return weights, taken


def _show(order: Order, epochs: list[Metrics], picture: Path | None) -> None:
    if picture is not None:
        from common.learning.pictures import draw_history

        try:
            draw_history(epochs, picture, order.name)
        except ConfigError as error:
            raise ConfigError(f"{error}, or draw nothing by --no-plot") from error
    if order.events is not None:
        from common.learning.event_files import write_events

        write_events(order.events, {order.name: list(enumerate(epochs, 1))})


def _measure(learner: FileLearner, weights: list[Tensor], site: Site) -> Evaluation | None:
    if not len(site.unseen):
        return None
    return evaluate(learner.predict(weights, site.unseen.images), site.unseen.labels)
