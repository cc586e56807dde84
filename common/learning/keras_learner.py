"""Any Keras model as a `Learner`: write `def my_model(options): return KerasLearner(keras.Sequential(...))`.

Importing this module loads TensorFlow.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import ConfigError, DataError, WorkError
from common.learning import export
from common.learning.augmentation import Augmentation, draw
from common.learning.framework import keras, tf
from common.learning.seam import Examples, Images, OnEpoch, Site, Trained
from common.messages import Plan
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
    training bit by bit. `pretrain`, where given, puts pretrained values into a fresh copy of the model.
    """

    def __init__(
        self,
        model: Any,
        *,
        augmentation: Augmentation = NO_AUGMENTATION,
        label_smoothing: float = 0.0,
        pretrain: Callable[[Any], None] | None = None,
    ) -> None:
        """Raise ConfigError where the model's input or output is not as above."""
        self.image_size = _image_size(model)
        self._model = model
        self._augmentation = augmentation
        self._label_smoothing = label_smoothing
        self._pretrain = pretrain
        self._optimizer = keras.optimizers.Adam()
        self._optimizer.build(model.trainable_variables)
        pixels = tf.TensorSpec((None, self.image_size, self.image_size, 3), tf.uint8)
        changes = (tf.TensorSpec((None, 8), tf.float32), tf.TensorSpec((None,), tf.float32))
        # One trace serves every batch size and every training of a warm process.
        self._step = tf.function(self._train_batch, (pixels, tf.TensorSpec((None,), tf.float32), *changes))
        self._forward = tf.function(self._predict_batch, (pixels,))

    def spec(self) -> Spec:
        """Name every tensor by its place and layer, without the numbers that Keras counts up in a process."""
        paths = (re.sub(r"_\d+(?=/|$)", "", variable.path) for variable in self._model.weights)
        names = [f"{place:03d}/{path}" for place, path in enumerate(paths)]
        return spec_of(names, _values(self._model))

    def initial(self, seed: int) -> list[Tensor]:
        """Draw every tensor anew from `seed`, then lay pretrained values over those that have some."""
        keras.utils.set_random_seed(seed % 2**32)
        fresh = keras.models.clone_model(self._model)
        if self._pretrain is not None:
            self._pretrain(fresh)
        return _values(fresh)

    def read(self, path: Path) -> list[Tensor]:
        """Read a `.keras` or `.weights.h5` file. Raises DataError where it is none or of another model."""
        if not path.is_file():
            raise DataError(f"{path}: there is no such file")
        try:
            self._model.load_weights(path)
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{path}: holds no weights of this model: {_first_line(error)}") from error
        return _values(self._model)

    def train(self, weights: list[Tensor], site: Site, plan: Plan, on_epoch: OnEpoch) -> Trained:
        """Train `plan.epochs` epochs. Raises WorkError where the loss or a weight stops being finite."""
        self._start(weights, plan)
        rng = np.random.default_rng(plan.seed)
        metrics: dict[str, float] = {}
        for epoch in range(1, plan.epochs + 1):
            metrics = self._train_epoch(site.train, plan, epoch, rng)
            if not np.isfinite(metrics["loss"]):
                raise WorkError(
                    f"the loss is not finite in epoch {epoch}; try a learning rate below {plan.learning_rate:g}"
                )
            on_epoch(epoch, metrics)
        trained = _values(self._model)
        if not all(np.isfinite(tensor).all() for tensor in trained):
            raise WorkError(f"the weights are not finite; try a learning rate below {plan.learning_rate:g}")
        return Trained(trained, len(site.train), metrics)

    def predict(self, weights: list[Tensor], images: Images) -> NDArray[np.float64]:
        """Probabilities `[n]` of the positive label."""
        self._model.set_weights(weights)
        starts = range(0, len(images), PREDICT_BATCH)
        parts = [self._forward(images[start : start + PREDICT_BATCH]).numpy() for start in starts]
        return np.concatenate([np.empty(0), *parts]).astype(np.float64)

    def export(self, weights: list[Tensor], folder: Path) -> Path:
        """Write `model.tflite` (float32, batch 1, pixels 0..255) and `model.keras`. Raises WorkError."""
        self._model.set_weights(weights)
        return export.write(self._model, folder)

    def _start(self, weights: list[Tensor], plan: Plan) -> None:
        """Forget all that an earlier training in this process left behind."""
        self._model.set_weights(weights)
        shared = {id(variable) for variable in self._model.weights}
        others = [variable for variable in self._model.variables if id(variable) not in shared]
        for place, variable in enumerate(others):  # the counters of the model's random layers, such as dropout
            variable.assign(np.full(variable.shape, (plan.seed + place) % 2**32, variable.dtype))
        for variable in self._optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))

    def _train_epoch(self, examples: Examples, plan: Plan, epoch: int, rng: np.random.Generator) -> dict[str, float]:
        order = rng.permutation(len(examples))
        starts = range(0, len(order), plan.batch_size)
        warm_up = min(WARM_UP_STEPS, plan.epochs * len(starts) // 2)
        totals = np.zeros(2)
        for step, start in enumerate(starts, (epoch - 1) * len(starts) + 1):
            self._optimizer.learning_rate = plan.learning_rate * min(1, step / max(warm_up, 1))
            batch = order[start : start + plan.batch_size]
            changes = draw(self._augmentation, rng, len(batch), self.image_size)
            labels = examples.labels[batch].astype(np.float32)
            totals += self._step(examples.images[batch], labels, changes.transforms, changes.gains).numpy()
        loss, accuracy = totals / len(order)
        return {"loss": float(loss), "accuracy": float(accuracy)}

    def _train_batch(self, images: Any, labels: Any, transforms: Any, gains: Any) -> Any:
        """One step of the optimizer; returns the batch's summed loss and its number of right answers."""
        pixels = _change(tf.cast(images, tf.float32), transforms, gains)
        smooth = labels * (1 - self._label_smoothing) + self._label_smoothing / 2
        with tf.GradientTape() as tape:
            probabilities = self._model(pixels, training=True)[:, 0]
            losses = keras.losses.binary_crossentropy(smooth[:, None], probabilities[:, None])
            penalty = tf.add_n(self._model.losses) if self._model.losses else 0.0
            loss = tf.reduce_mean(losses) + penalty
        variables = self._model.trainable_variables
        self._optimizer.apply(tape.gradient(loss, variables), variables)
        right = tf.equal(probabilities >= 0.5, labels >= 0.5)
        return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(tf.cast(right, tf.float32))])

    def _predict_batch(self, images: Any) -> Any:
        return self._model(tf.cast(images, tf.float32), training=False)[:, 0]


def _values(model: Any) -> list[Tensor]:
    return [variable.value.numpy() for variable in model.weights]


def _change(pixels: Any, transforms: Any, gains: Any) -> Any:
    """Apply drawn changes; what comes in from beyond the border repeats the border's pixels."""
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=pixels,
        transforms=transforms,
        output_shape=tf.shape(pixels)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )
    mean = tf.reduce_mean(moved, axis=(1, 2, 3), keepdims=True)
    return tf.clip_by_value(mean + (moved - mean) * gains[:, None, None, None], 0.0, 255.0)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]


def _image_size(model: Any) -> int:
    if not isinstance(model, keras.Model) or not hasattr(model, "input_shape"):
        raise ConfigError(
            "the model must be a built keras.Sequential (begin it with keras.Input) or a functional model"
        )
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] is None or shape[1] != shape[2] or shape[3] != 3:
        raise ConfigError(f"the model takes {shape}; it must take square RGB images, as in keras.Input((128, 128, 3))")
    if model.output_shape != (None, 1):
        raise ConfigError(
            f"the model gives {model.output_shape}; it must give one probability, like Dense(1, activation='sigmoid')"
        )
    return int(shape[1])
