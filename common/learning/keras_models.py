"""What a Keras model must be to become a `Learner`, and the values it was built with.

Importing this module loads TensorFlow.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from common.errors import ConfigError
from common.learning.framework import keras, tf
from common.weights import Tensor

SAME_VALUE = frozenset({"Identity", "Reshape", "Squeeze", "Slice", "StridedSlice", "ExpandDims", "Cast"})
"""TensorFlow's operations that change a value's form only."""


def check(model: Any) -> int:
    """Return the side in pixels of the images that `model` takes.

    Raises ConfigError for a model that could not be trained, exported or served: of another input or output, without
    a sigmoid, in another precision than float32, or with a layer that cannot be made anew from its configuration.
    """
    size = _image_size(model)
    for layer in leaves(model):
        _check_layer(layer)
    if not _is_sigmoid(model) and (found := _last_operation(model)) != "":
        raise ConfigError(
            f"the model's last operation is {found}, so that it gives no probability; "
            "end it in a sigmoid, like Dense(1, activation='sigmoid')"
        )
    return size


def values(model: Any) -> list[Tensor]:
    """Every tensor that is shared, in Keras's order."""
    return [variable.value.numpy() for variable in model.weights]


def leaves(model: Any) -> Iterator[Any]:
    """The layers of `model` in order, those of models within it too."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from leaves(layer)
        else:
            yield layer


def adapted(model: Any) -> list[Any]:
    """The layers that compute with a copy of their variables, such as Normalization."""
    return [layer for layer in leaves(model) if hasattr(layer, "finalize_state")]


def draw_anew(model: Any, built: list[Tensor], seed: int) -> Any:
    """Copy `model` with what its initializers gave drawn anew by `seed`, all else as in `built`, its values when built.

    Pretrained or adapted values are so kept, and likewise those of a user's layer that keeps no initializer.
    """
    keras.utils.set_random_seed(seed % 2**32)
    fresh = keras.models.clone_model(model)
    initializers = {id(variable): list(_initializers(layer)) for layer in leaves(model) for variable in layer.weights}
    laid = [
        drawn if _is_drawn(variable, value, initializers.get(id(variable), [])) else value
        for variable, value, drawn in zip(model.weights, built, values(fresh), strict=True)
    ]
    fresh.set_weights(laid)
    return fresh


def _is_drawn(variable: Any, value: Tensor, initializers: list[Any]) -> bool:
    """Whether one of a layer's initializers gives `value`: Keras seeds each when it is made, so it gives it again."""
    for initializer in initializers:
        try:
            given = initializer(variable.shape, dtype=variable.dtype)
        except (ValueError, TypeError):  # one for tensors of another shape or dtype
            continue
        if np.array_equal(np.asarray(given), value):
            return True
    return False


def _initializers(layer: Any) -> Iterator[Any]:
    """The initializers of a layer and of those that it holds."""
    for attribute in vars(layer).values():
        if isinstance(attribute, keras.initializers.Initializer):
            yield attribute
        elif isinstance(attribute, keras.Layer) and attribute is not layer:
            yield from (each for each in vars(attribute).values() if isinstance(each, keras.initializers.Initializer))


def _check_layer(layer: Any) -> None:
    if layer.compute_dtype != "float32":
        raise ConfigError(
            f"layer {layer.name!r} computes in {layer.compute_dtype}, in which it cannot be exported; "
            "build the model in float32, without keras.mixed_precision"
        )
    kind, is_lambda = type(layer), isinstance(layer, keras.layers.Lambda)
    if kind.__module__.startswith("keras.") and not is_lambda:
        return
    try:
        kind.from_config(layer.get_config())
    except Exception as error:  # whatever a user's class raises
        cure = (
            "take Rescaling, another layer of Keras or a class of your own"
            if is_lambda
            else f"let {kind.__name__}.get_config return all that its __init__ takes, and pass **kwargs on to "
            f"super().__init__ ({_first_line(error)})"
        )
        raise ConfigError(
            f"layer {layer.name!r} of class {kind.__name__} cannot be made anew from its configuration; {cure}"
        ) from error


def _is_sigmoid(model: Any) -> bool:
    """Whether the last layer plainly ends in a sigmoid, which saves tracing the model."""
    last = model.layers[-1]
    if not isinstance(model, keras.Sequential):
        try:
            if last.output is not model.outputs[0]:
                return False
        except (AttributeError, ValueError):  # a layer that is used in several places
            return False
    if hasattr(last, "layers"):
        return _is_sigmoid(last)
    return getattr(last, "activation", None) is keras.activations.sigmoid


def _last_operation(model: Any) -> str:
    """TensorFlow's name of the operation that makes the output; nothing where that gives a probability."""
    pixels = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    operation = tf.function(lambda x: model(x, training=False), (pixels,)).get_concrete_function().graph.outputs[0].op
    while operation.type in SAME_VALUE:
        operation = operation.inputs[0].op
    is_softmax = operation.type == "Softmax" and operation.outputs[0].shape[-1] != 1  # that of one number is always 1
    return "" if operation.type == "Sigmoid" or is_softmax else str(operation.type)


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


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200] or type(error).__name__
