"""The built-in models, written as a user writes one: a function of options that returns a `Learner`.

Options are checked before TensorFlow is loaded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from common.config import Config, convert
from common.errors import DataError, LinkError
from common.learning.augmentation import Augmentation
from common.weights import Tensor

if TYPE_CHECKING:
    from common.learning.keras_learner import KerasLearner

Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]


WarmUp = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class SimpleCnn(Config, frozen=True):
    """Options of `simple_cnn`. Sizes in pixels."""

    image_size: Annotated[int, msgspec.Meta(ge=16, le=1024)] = 128
    dropout: Fraction = 0.0
    label_smoothing: Fraction = 0.0
    warm_up_steps: WarmUp = 100
    """Steps over which the learning rate rises to its height, at most half of a training's."""
    augmentation: Augmentation = Augmentation()


class ExtraDenseCnn(SimpleCnn, frozen=True):
    """Options of `extra_dense_cnn`. Sizes in pixels."""

    freeze: bool = True
    """Whether the layers before the first extra one stay as they are."""


class MobileNetV2(Config, frozen=True):
    """Options of `mobilenet_v2`. Sizes in pixels."""

    image_size: Annotated[int, msgspec.Meta(ge=32, le=1024)] = 128
    alpha: Annotated[float, msgspec.Meta(ge=0.1, le=2)] = 0.35
    weights: str | None = "imagenet"
    """`imagenet` (downloaded), the path of a weight file, or null for random. Only `initial` reads it."""
    trainable_layers: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 60
    """How many of the last layers below the classifier are trained, counted as Keras lists them."""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    """`frozen` keeps the pretrained statistics and scales; `trained` trains those of the trained layers."""
    dropout: Fraction = 0.2
    label_smoothing: Fraction = 0.0
    warm_up_steps: WarmUp = 100
    augmentation: Augmentation = Augmentation()


def simple_cnn(options: Mapping[str, Any]) -> "KerasLearner":
    """Three blocks of convolution and max-pooling (8, 16, 32 filters), then dense 32 and 1. Raises ConfigError."""
    chosen = convert(dict(options), SimpleCnn, "options of simple_cnn")
    return _learner([*_blocks(chosen), *_top(chosen)], chosen)


def extra_dense_cnn(options: Mapping[str, Any]) -> "KerasLearner":
    """`simple_cnn` with a convolution more behind its blocks and a dense layer more before its last.

    The shared layers have the same names and shapes as in `simple_cnn`; the further ones are `extra_conv`
    and `extra_dense`. The plan's `personal: ["*/extra_*"]` keeps these on the device; without it they are
    averaged as well. Raises ConfigError.
    """
    chosen = convert(dict(options), ExtraDenseCnn, "options of extra_dense_cnn")
    from common.learning.framework import keras

    blocks = _blocks(chosen)
    for layer in blocks[1:]:
        layer.trainable = not chosen.freeze
    flatten, dense, dropout, last = _top(chosen)
    extra_conv = keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="extra_conv")
    extra_dense = keras.layers.Dense(32, activation="relu", name="extra_dense")
    return _learner([*blocks, extra_conv, flatten, dense, dropout, extra_dense, last], chosen)


def _blocks(chosen: SimpleCnn) -> list[Any]:
    from common.learning.framework import keras

    layers: list[Any] = [keras.Input((chosen.image_size, chosen.image_size, 3)), keras.layers.Rescaling(1 / 255)]
    for place, filters in enumerate((8, 16, 32), 1):
        layers += [
            keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{place}"),
            keras.layers.MaxPooling2D(name=f"pool{place}"),
        ]
    return layers


def _top(chosen: SimpleCnn) -> list[Any]:
    from common.learning.framework import keras

    return [
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(32, activation="relu", name="dense"),
        keras.layers.Dropout(chosen.dropout, name="dropout"),
        keras.layers.Dense(1, activation="sigmoid", name="probability"),
    ]


def _learner(layers: list[Any], chosen: SimpleCnn) -> "KerasLearner":
    from common.learning.framework import keras
    from common.learning.keras_learner import KerasLearner

    return KerasLearner(
        keras.Sequential(layers),
        augmentation=chosen.augmentation,
        label_smoothing=chosen.label_smoothing,
        warm_up_steps=chosen.warm_up_steps,
    )


def mobilenet_v2(options: Mapping[str, Any]) -> "KerasLearner":
    """MobileNetV2 (Sandler et al. 2018) below average pooling, dropout and one sigmoid. Raises ConfigError.

    Where `options` name pretrained weights, `initial` raises DataError if it cannot read them, LinkError if they
    cannot be downloaded.
    """
    chosen = convert(dict(options), MobileNetV2, "options of mobilenet_v2")
    from common.learning.framework import keras
    from common.learning.keras_learner import KerasLearner

    backbone = _backbone(chosen)
    frozen = backbone.layers[: max(len(backbone.layers) - chosen.trainable_layers, 0)]
    for layer in backbone.layers:
        is_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = layer not in frozen and not (is_norm and chosen.batch_norm == "frozen")
    model = keras.Sequential(
        [
            keras.Input((chosen.image_size, chosen.image_size, 3)),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            backbone,
            keras.layers.GlobalAveragePooling2D(name="average"),
            keras.layers.Dropout(chosen.dropout, name="dropout"),
            keras.layers.Dense(1, activation="sigmoid", name="probability"),
        ]
    )

    def pretrain(fresh: Any) -> None:
        fresh.get_layer(backbone.name).set_weights(_pretrained(chosen, backbone))

    return KerasLearner(
        model,
        augmentation=chosen.augmentation,
        label_smoothing=chosen.label_smoothing,
        warm_up_steps=chosen.warm_up_steps,
        pretrain=pretrain if chosen.weights else None,
    )


def _pretrained(chosen: MobileNetV2, backbone: Any) -> list[Tensor]:
    """Return the values that `chosen.weights` names for the tensors of `backbone`."""
    from common.learning import keras_files

    if chosen.weights != "imagenet":
        return keras_files.read(backbone, Path(str(chosen.weights)).expanduser(), is_whole=False)
    try:
        values: list[Tensor] = _backbone(chosen, "imagenet").get_weights()
    except ValueError as error:
        raise DataError(f"weights: there are no imagenet weights for these options: {_first_line(error)}") from error
    except Exception as error:  # Keras raises a bare Exception where its download fails
        raise LinkError(
            f"weights: imagenet cannot be downloaded ({_first_line(error)}); connect this machine to the internet, "
            "or download the file without top elsewhere and name it: weights: /path/to/the/file.h5"
        ) from error
    return values


def _backbone(chosen: MobileNetV2, weights: str | None = None) -> Any:
    from common.learning.framework import keras

    shape = (chosen.image_size, chosen.image_size, 3)
    return keras.applications.MobileNetV2(
        input_shape=shape, alpha=chosen.alpha, include_top=False, weights=weights, name="mobilenet_v2"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
