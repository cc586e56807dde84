"""The layers of a network as a file describes them: read as data, and never built or executed."""

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from common.errors import DataError

Setting: TypeAlias = bool | float | str | tuple[float, ...] | None
KINDS_WITHOUT_EFFECT = frozenset(
    {
        *("InputLayer", "Dropout", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "ActivityRegularization"),
        *("RandomBrightness", "RandomContrast", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom"),
    }
)
"""Layers that change no prediction."""
SETTINGS = (
    "activation", "alpha", "data_format", "depth_multiplier", "dilation_rate", "epsilon", "filters", "groups",
    "kernel_size", "max_value", "negative_slope", "offset", "padding", "pool_size", "scale", "strides", "threshold",
    "units", "use_bias",
)  # fmt: skip
"""What decides a layer's output besides its weights, under the names of Keras 2 and 3."""
MAX_LAYERS = 10_000
MAX_DEPTH = 16
MAX_TEXT = 200


class Layer(msgspec.Struct, frozen=True):
    """One layer: its class, its name, what decides its output, and where it is a model, its own layers."""

    kind: str
    name: str
    settings: dict[str, Setting] = {}
    layers: tuple["Layer", ...] = ()
    image_size: int | None = None
    """Height and width of the images that the layer is declared to take, where it says so and they are equal."""


def read_outline(text: str | bytes) -> Layer | None:
    """Read the JSON that Keras writes of a whole model; None where it describes none. Raises DataError for no JSON."""
    try:
        plain = json.loads(text)
        return _layer(plain, [MAX_LAYERS], MAX_DEPTH) if "class_name" in plain else None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"the description of its layers is damaged: {str(error)[:200]}") from error


def leaves(model: Layer) -> Iterator[Layer]:
    """Yield the layers in order, those of models within it in their place."""
    for layer in model.layers:
        yield from leaves(layer) if layer.layers else (layer,)


def size_of(model: Layer) -> int | None:
    """Height and width of the images that the network takes; None where it does not say."""
    if model.image_size is not None or not model.layers:
        return model.image_size
    return size_of(model.layers[0])


def difference(expected: Layer, found: Layer) -> str | None:
    """Say in one clause where the layers of `found` compute something else than those of `expected`."""
    wanted = [layer for layer in leaves(expected) if layer.kind not in KINDS_WITHOUT_EFFECT]
    there = [layer for layer in leaves(found) if layer.kind not in KINDS_WITHOUT_EFFECT]
    for want, got in zip(wanted, there, strict=False):
        if want.kind != got.kind:
            return f"layer {got.name!r} is a {got.kind} where the model has a {want.kind}"
        for name in want.settings.keys() & got.settings.keys():
            if not _is_same(want.settings[name], got.settings[name]):
                said, wished = got.settings[name], want.settings[name]
                return f"layer {got.name!r} has {name} {said} where the model has {wished}"
    if len(wanted) != len(there):
        return f"it has {len(there)} layers where the model has {len(wanted)}"
    return None


def _layer(plain: Any, left: list[int], depth: int) -> Layer:
    if depth == 0 or left[0] == 0:
        raise ValueError("it nests too deep or lists too many layers")
    left[0] -= 1
    config = plain.get("config") or {}
    if isinstance(config, list):  # a Sequential of Keras before 2.2.3 is a bare list
        config = {"layers": config}
    kind = str(plain["class_name"]).rpartition(">")[2]
    listed = config.get("layers", [])
    shape = config.get("batch_shape") or config.get("batch_input_shape") or config.get("build_input_shape")
    return Layer(
        kind=_short(kind),
        name=_short(config.get("name", plain.get("name", kind))),
        settings={key: _setting(config[key]) for key in SETTINGS if key in config and _is_plain(config[key])},
        layers=tuple(_layer(layer, left, depth - 1) for layer in listed),
        image_size=_image_size(shape),
    )


def _short(text: Any) -> str:
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise ValueError("a name in it is not a text, or too long")
    return text


def _image_size(shape: Any) -> int | None:
    is_image = isinstance(shape, list) and len(shape) == 4 and isinstance(shape[1], int) and shape[1] == shape[2]
    return shape[1] if is_image and 0 < shape[1] <= 2**20 else None


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return len(value) <= 8 and all(isinstance(part, int | float) for part in value)
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= MAX_TEXT)


def _setting(value: Any) -> Setting:
    if isinstance(value, list):
        return tuple(float(part) for part in value)
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_same(one: Setting, other: Setting) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-6 * max(abs(one), abs(other))
    if one in {None, "linear"}:
        return other in {None, "linear"}
    return one == other
