"""Any Keras model as a `Learner`: write `def my_model(options): return KerasLearner(keras.Sequential(...))`.

Importing this module loads TensorFlow.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError, WorkError
from common.learning import conversion, keras_files, keras_models
from common.learning.augmentation import Augmentation, draw
from common.learning.course import Course, Patience, balance, batches, chart, hold_out
from common.learning.evaluation import evaluate
from common.learning.framework import keras, tf
from common.learning.keras_models import leaves, values
from common.learning.keras_step import Batch, Pull, Stepper
from common.learning.outline import Layer, read_outline
from common.learning.seam import Examples, Images, OnEpoch, Site, Trained, Variant
from common.plan import Training
from common.weights import Spec, Tensor, spec_of

PREDICT_BATCH = 32
WARM_UP_STEPS = 100
"""A training's first steps, at most half of them, rise to the learning rate.

Adam's first steps have one size for every weight. Without the rise they ruined pretrained weights for
good in 1 of 8 trainings at 5e-4 and in most at 1e-3 (batch 8); with it in none.
"""
NO_AUGMENTATION = Augmentation(flips="none", rotation=0, zoom=0, contrast=0)


class KerasLearner:
    """Trains `model` with Adam on binary cross-entropy.

    The model is sequential or functional, takes pixels 0..255 as float32 `[n, size, size, 3]` and
    gives the positive label's probability `[n, 1]`. Layers with `trainable = False` come back from a
    training bit by bit. Values that the model has besides those of its initializers, pretrained or adapted ones, are
    kept. `pretrain`, where given, puts pretrained values into a fresh copy of the model: what only the
    coordinator needs, such as a download, has its place there.
    """

    def __init__(
        self,
        model: Any,
        *,
        augmentation: Augmentation = NO_AUGMENTATION,
        label_smoothing: float = 0.0,
        warm_up_steps: int = WARM_UP_STEPS,
        pretrain: Callable[[Any], None] | None = None,
    ) -> None:
        """Raise ConfigError where the model is not as above, or could not be exported: see `keras_models.check`."""
        self.image_size = keras_models.check(model)
        self._model = model
        self._built = values(model)
        self._adapted = keras_models.adapted(model)
        self._augmentation = augmentation
        self._label_smoothing = label_smoothing
        self._warm_up_steps = warm_up_steps
        self._pretrain = pretrain
        self._norms = [(layer, layer.trainable) for layer in _norms(model)]
        self._steppers: dict[tuple[bool, ...], Stepper] = {}
        self._forward = self._trace()

    def spec(self) -> Spec:
        """Name every tensor by its place and layer, without the numbers that Keras counts up in a process."""
        paths = (re.sub(r"_\d+(?=/|$)", "", variable.path) for variable in self._model.weights)
        names = [f"{place:03d}/{path}" for place, path in enumerate(paths)]
        return spec_of(names, values(self._model))

    def initial(self, seed: int) -> list[Tensor]:
        """Draw anew from `seed` what initializers gave, then let `pretrain` lay its values over them."""
        fresh = keras_models.draw_anew(self._model, self._built, seed)
        if self._pretrain is not None:
            self._pretrain(fresh)
        return values(fresh)

    def read(self, path: Path) -> list[Tensor]:
        """Read a file that holds the weights of this model and no others: see `weight_files`. Raises DataError.

        Tensors are matched by the names of their layers, and by shapes where these leave no choice.
        """
        return keras_files.read(self._model, path)

    def lay_over(self, weights: list[Tensor], path: Path) -> tuple[list[Tensor], int]:
        """Put the tensors of a file over those of the same layer and shape; returns how many there were as well."""
        return keras_files.lay_over(self._model, weights, path)

    def outline(self) -> Layer | None:
        """Return the layers; None where one of the user's own cannot be described."""
        try:
            return read_outline(self._model.to_json())
        except (DataError, NotImplementedError, TypeError, ValueError):
            return None

    def save(self, weights: list[Tensor], path: Path) -> None:
        """Write a `.keras` or `.h5` (whole models), `.weights.h5` or `.npz` file. Raises ConfigError or WorkError."""
        self._put(weights)
        keras_files.save(self._model, path)

    def train(self, weights: list[Tensor], site: Site, training: Training, on_epoch: OnEpoch) -> Trained:
        """Train as `training` says. Raises WorkError where the loss or a weight stops being finite."""
        train, validation = hold_out(site.train, training.validation_share)
        course = chart(training, len(train))
        patience = Patience(training.patience if len(validation) else 0)
        run = _Run(training, course, self._start(weights, training), train)
        metrics: dict[str, float] = {}
        best: tuple[list[Tensor], dict[str, float]] | None = None
        for epoch in range(1, course.epochs + 1):
            metrics = {**self._train_epoch(run, epoch), **self._validate(validation)}
            on_epoch(epoch, metrics)
            patience = patience.after(epoch, metrics.get("validation_loss", np.inf))
            if patience.limit and patience.epoch == epoch:
                best = values(self._model), metrics
            if patience.is_over:
                break
        trained, metrics = best or (values(self._model), metrics)
        if not all(np.isfinite(tensor).all() for tensor in trained):
            raise WorkError(f"the weights are not finite; try a learning rate below {training.learning_rate:g}")
        return Trained(trained, len(train), metrics)

    def predict(self, weights: list[Tensor], images: Images) -> NDArray[np.float64]:
        """Probabilities `[n]` of the positive label."""
        self._put(weights)
        return self._predict(images)

    def export(self, weights: list[Tensor], folder: Path) -> Path:
        """Write `model.tflite` (float32, batch 1, pixels 0..255) and `model.keras`. Raises WorkError."""
        self._put(weights)
        return conversion.write(self._model, folder)

    def convert(self, weights: list[Tensor], variant: Variant, images: Images) -> bytes:
        """Convert to a TFLite variant, calibrated on `images` where it is int8. Raises ConfigError or WorkError."""
        self._put(weights)
        return conversion.convert(self._model, variant, images)

    def _put(self, weights: list[Tensor]) -> None:
        """Give the model these values. A trace holds an adapted layer's copy of its own, so it is made anew."""
        before = [variable.value.numpy() for layer in self._adapted for variable in layer.weights]
        self._model.set_weights(weights)
        after = [variable.value.numpy() for layer in self._adapted for variable in layer.weights]
        if all(map(np.array_equal, before, after)):
            return
        for layer in self._adapted:
            layer.finalize_state()
        self._steppers.clear()
        self._forward = self._trace()

    def _trace(self) -> Any:
        pixels = tf.TensorSpec((None, self.image_size, self.image_size, 3), tf.uint8)
        return tf.function(self._predict_batch, (pixels,))

    def _start(self, weights: list[Tensor], training: Training) -> Stepper:
        """Forget all that an earlier training in this process left behind."""
        self._put(weights)
        shared = {id(variable) for variable in self._model.weights}
        others = [variable for variable in self._model.variables if id(variable) not in shared]
        for place, variable in enumerate(others):  # the counters of the model's random layers, such as dropout
            variable.assign(np.full(variable.shape, (training.seed + place) % 2**32, variable.dtype))
        stepper = self._stepper(training)
        stepper.reset()
        return stepper

    def _stepper(self, training: Training) -> Stepper:
        """Take the step whose trace fits `training`: one each for BatchNorm trained or not, pulled or not."""
        for layer, as_built in self._norms:
            layer.trainable = as_built if training.batch_norm == "model" else training.batch_norm != "frozen"
        is_proximal = training.proximal_mu > 0
        key = (is_proximal, *(layer.trainable for layer, _ in self._norms))
        if key not in self._steppers:
            self._steppers[key] = Stepper(self._model, self.image_size, self._label_smoothing, is_proximal=is_proximal)
        return self._steppers[key]

    def _train_epoch(self, run: "_Run", epoch: int) -> dict[str, float]:
        training, course, train = run.training, run.course, run.examples
        warm_up = min(self._warm_up_steps, course.steps // 2)
        pull = Pull(training.proximal_mu, training.clip_norm)
        totals, count = np.zeros(2), 0
        places = batches(len(train), training.batch_size, run.rng)
        first = (epoch - 1) * course.per_epoch + 1
        for step, batch in zip(range(first, first + course.steps_of(epoch)), places, strict=False):
            changes = draw(self._augmentation, run.rng, len(batch), self.image_size)
            labels = train.labels[batch].astype(np.float32)
            given = Batch(train.images[batch], labels, run.weights[batch], changes)
            totals += run.stepper.step(given, training.learning_rate * min(1, step / max(warm_up, 1)), pull)
            count += len(batch)
        loss, accuracy = totals / count
        if not np.isfinite(loss):
            raise WorkError(
                f"the loss is not finite in epoch {epoch}; try a learning rate below {training.learning_rate:g}"
            )
        return {"loss": float(loss), "accuracy": float(accuracy)}

    def _validate(self, examples: Examples) -> dict[str, float]:
        if not len(examples):
            return {}
        found = evaluate(self._predict(examples.images), examples.labels)
        figures = {"loss": found.loss, "accuracy": found.accuracy, "auc": found.auc}
        return {f"validation_{name}": value for name, value in figures.items() if value is not None}

    def _predict(self, images: Images) -> NDArray[np.float64]:
        starts = range(0, len(images), PREDICT_BATCH)
        parts = [self._forward(images[start : start + PREDICT_BATCH]).numpy() for start in starts]
        return np.concatenate([np.empty(0), *parts]).astype(np.float64)

    def _predict_batch(self, images: Any) -> Any:
        return self._model(tf.cast(images, tf.float32), training=False)[:, 0]


class _Run:
    """What stays the same from epoch to epoch."""

    def __init__(self, training: Training, course: Course, stepper: Stepper, examples: Examples) -> None:
        self.training, self.course, self.stepper, self.examples = training, course, stepper, examples
        self.rng = np.random.default_rng(training.seed)
        self.weights = balance(examples.labels) if training.class_weights else np.ones(len(examples), np.float32)


def _norms(model: Any) -> list[Any]:
    """The BatchNorm layers that a training may change: those behind the first layer that is trained."""
    is_behind, found = False, []
    for layer in leaves(model):
        is_behind = is_behind or bool(layer.trainable_variables)
        if is_behind and isinstance(layer, keras.layers.BatchNormalization):
            found.append(layer)
    return found
