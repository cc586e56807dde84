"""One step of training as a traced TensorFlow graph. Importing this module loads TensorFlow."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.learning.augmentation import Changes
from common.learning.evaluation import THRESHOLD
from common.learning.framework import keras, tf
from common.learning.seam import Images


@dataclass(frozen=True)
class Batch:
    """Images `[n, size, size, 3]` with labels and weights in the loss `[n]`, and how each image is changed."""

    images: Images
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    changes: Changes


@dataclass(frozen=True)
class Pull:
    """What acts on a step besides the loss: FedProx's weight (mu), the largest norm of the gradient (0: any)."""

    proximal_mu: float
    clip_norm: float


class Stepper:
    """Adam on the binary cross-entropy of `model`, over the variables that are trainable when this is made.

    One trace serves every batch size and every training of a warm process.
    """

    def __init__(self, model: Any, image_size: int, label_smoothing: float, *, is_proximal: bool) -> None:
        """Take `is_proximal` where steps will be pulled towards the weights at `reset`: that costs a copy of them."""
        self._model = model
        self._label_smoothing = label_smoothing
        self._variables = list(model.trainable_variables)
        self._anchors = [tf.Variable(v.value, trainable=False) for v in self._variables] if is_proximal else []
        self._optimizer = keras.optimizers.Adam()
        self._optimizer.build(self._variables)
        pixels = tf.TensorSpec((None, image_size, image_size, 3), tf.uint8)
        numbers, scalar = tf.TensorSpec((None,), tf.float32), tf.TensorSpec((), tf.float32)
        signature = (pixels, numbers, numbers, tf.TensorSpec((None, 8), tf.float32), numbers, scalar, scalar)
        self._run = tf.function(self._step, signature)

    def reset(self) -> None:
        """Forget an earlier training: the model's weights are where this one starts, and what it is pulled to."""
        for variable in self._optimizer.variables:
            variable.assign(np.zeros(variable.shape, variable.dtype))
        for anchor, variable in zip(self._anchors, self._variables, strict=False):
            anchor.assign(variable.value)

    def step(self, batch: Batch, learning_rate: float, pull: Pull) -> NDArray[np.float64]:
        """Move the weights once; returns the batch's summed loss and its number of right answers."""
        self._optimizer.learning_rate = learning_rate
        changes = batch.changes
        limits = np.float32(pull.proximal_mu), np.float32(pull.clip_norm or np.inf)
        totals = self._run(batch.images, batch.labels, batch.weights, changes.transforms, changes.gains, *limits)
        sums: NDArray[np.float64] = totals.numpy().astype(np.float64)
        return sums

    def _step(  # noqa: PLR0913, PLR0917 - a graph takes tensors, not structs
        self, images: Any, labels: Any, weights: Any, transforms: Any, gains: Any, mu: Any, clip_norm: Any
    ) -> Any:
        pixels = _change(tf.cast(images, tf.float32), transforms, gains)
        smooth = labels * (1 - self._label_smoothing) + self._label_smoothing / 2
        with tf.GradientTape() as tape:
            probabilities = self._model(pixels, training=True)[:, 0]
            losses = keras.losses.binary_crossentropy(smooth[:, None], probabilities[:, None])
            penalty = tf.add_n(self._model.losses) if self._model.losses else 0.0
            loss = tf.reduce_mean(losses * weights) + penalty
        gradients = tape.gradient(loss, self._variables)
        self._optimizer.apply(_clip(self._pulled(gradients, mu), clip_norm), self._variables)
        right = tf.equal(probabilities >= THRESHOLD, labels >= THRESHOLD)
        return tf.stack([tf.reduce_sum(losses), tf.reduce_sum(tf.cast(right, tf.float32))])

    def _pulled(self, gradients: list[Any], mu: Any) -> list[Any]:
        """Add the gradient of FedProx's term (mu / 2) |w - w_global|^2 (Li et al. 2020, equation 2)."""
        if not self._anchors:
            return gradients
        triples = zip(gradients, self._variables, self._anchors, strict=True)
        return [mu * (v - a) if g is None else g + mu * (v - a) for g, v, a in triples]


def _clip(gradients: list[Any], norm: Any) -> list[Any]:
    """Scale all gradients so that their norm together is at most `norm`; infinity leaves them as they are."""
    reach = norm / tf.linalg.global_norm([g for g in gradients if g is not None])
    factor = tf.where(tf.math.is_inf(norm), 1.0, tf.minimum(1.0, reach))
    return [g if g is None else g * factor for g in gradients]


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
