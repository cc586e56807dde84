"""Biases of an 8-bit model that make up for what rounding shifts on average.

Rounding a channel's weights shifts its output by the same amount in every image; where most of an image is background
it adds up. Bias correction: Nagel et al., "Data-free quantization through weight equalization and bias correction"
(2019), section 4.2, with the means of what a kernel sees as measured on images, padding included.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from common.learning.export import interpret
from common.learning.framework import flatbuffer_utils
from common.learning.seam import Images

Array: TypeAlias = NDArray[np.float64]
KINDS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


@dataclass(frozen=True)
class _Layer:
    """A layer of the 8-bit model: its operator, its input and bias there, and its input's place in the float model.

    Weights are [outputs, height, width, inputs]; of depthwise ones [1, height, width, channels], of dense ones
    [outputs, 1, 1, inputs].
    """

    kind: str
    options: Any
    given: Any
    bias: Any
    place: int
    rounded: Array
    exact: Array


def correct(content: bytes, whole: bytes, images: Images) -> bytes:
    """Shift the biases of an int8 file. `whole` is the model in float32 with the same names of tensors.

    A layer that `whole` does not know by its names stays as it is. Raises ConfigError where no interpreter is
    installed.
    """
    model, exact = (flatbuffer_utils.convert_bytearray_to_object(bytearray(one)) for one in (content, whole))
    layers = list(_layers(model, exact))
    for layer, error in zip(layers, _errors(whole, layers, images), strict=True):
        steps = np.round(error / np.array(layer.bias.quantization.scale))
        values = (_values(model, layer.bias, np.int32) - steps).astype(np.int32)
        model.buffers[layer.bias.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _layers(model: Any, exact: Any) -> Iterator[_Layer]:
    graph, whole = model.subgraphs[0], exact.subgraphs[0]
    makers: Mapping[bytes, Any] = {whole.tensors[operator.outputs[0]].name: operator for operator in whole.operators}
    sources = dict[int, int]()
    for operator in graph.operators:
        kind = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
        if kind == "QUANTIZE":
            sources[operator.outputs[0]] = operator.inputs[0]
        if kind not in KINDS or len(operator.inputs) < 3 or operator.inputs[2] < 0:
            continue
        given, weights, bias = (graph.tensors[number] for number in operator.inputs[:3])
        maker = makers.get(graph.tensors[operator.outputs[0]].name)
        source = graph.tensors[sources.get(operator.inputs[0], operator.inputs[0])]
        if maker is None or whole.tensors[maker.inputs[0]].name != source.name:
            continue
        rounded = _values(model, weights, np.int8)
        real = _values(exact, whole.tensors[maker.inputs[1]], np.float32)
        is_grouped = kind == "CONV_2D" and len(rounded) and rounded.shape[3] != given.shape[3]
        if len(rounded) and rounded.shape == real.shape and not is_grouped:
            rounded = rounded * _scales(weights, kind)
            if kind == "FULLY_CONNECTED":
                rounded, real = rounded[:, None, None], real[:, None, None]
            yield _Layer(kind, operator.builtinOptions, given, bias, maker.inputs[0], rounded, real)


def _errors(whole: bytes, layers: Sequence[_Layer], images: Images) -> list[Array]:
    """Mean error of each layer's outputs where its inputs are those of the float model, rounded as they will be."""
    with tempfile.TemporaryDirectory(prefix="fedpi-correction-") as folder:
        path = Path(folder, "whole.tflite")
        path.write_bytes(whole)
        interpreter = interpret(path, is_kept=True)
    given = interpreter.get_input_details()[0]["index"]
    errors = [np.zeros(np.shape(layer.bias.quantization.scale)) for layer in layers]
    for image in images:
        interpreter.set_tensor(given, image[None].astype(np.float32))
        interpreter.invoke()
        for place, layer in enumerate(layers):
            values, ranges = interpreter.get_tensor(layer.place), layer.given.quantization
            scale, zero = ranges.scale[0], ranges.zeroPoint[0]
            rounded = (np.clip(np.round(values / scale) + zero, -128, 127) - zero) * scale
            errors[place] += _output(layer, layer.rounded, rounded) - _output(layer, layer.exact, values)
    return [error / len(images) for error in errors]


def _output(layer: _Layer, weights: Array, values: NDArray[np.float32]) -> Array:
    """Mean output of every channel without bias and activation: weights times the mean of what they see."""
    seen = _seen(layer, values)
    if layer.kind == "DEPTHWISE_CONV_2D":
        repeated = np.repeat(seen, weights.shape[3] // seen.shape[2], axis=2)
        found: Array = np.einsum("hwc,hwc->c", weights[0], repeated)
    else:
        found = np.einsum("ohwc,hwc->o", weights, seen)
    return found


def _seen(layer: _Layer, values: NDArray[np.float32]) -> Array:
    """Mean over all positions of the inputs `[height, width, inputs]` that a kernel sees there, zeros for padding."""
    if layer.kind == "FULLY_CONNECTED":
        mean: Array = values.reshape(-1, values.shape[-1]).mean(axis=0, dtype=np.float64)
        return mean[None, None]
    o, image, kernel = layer.options, values[0], layer.exact.shape[1:3]
    strides, spread = (o.strideH, o.strideW), (o.dilationHFactor, o.dilationWFactor)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, spread, strict=True)]
    is_same = o.padding == 0
    sizes = [-(-n // s) if is_same else (n - r) // s + 1 for n, s, r in zip(image.shape, strides, reach, strict=False)]
    whole = [max((m - 1) * s + r - n, 0) for m, s, r, n in zip(sizes, strides, reach, image.shape, strict=False)]
    padded = np.pad(image, [*((w // 2, w - w // 2) for w in whole), (0, 0)])
    seen = np.empty((*kernel, image.shape[2]))
    for y, x in np.ndindex(*kernel):
        rows, columns = (
            slice(at * d, at * d + (m - 1) * s + 1, s)
            for at, d, m, s in zip((y, x), spread, sizes, strides, strict=True)
        )
        seen[y, x] = padded[rows, columns].mean(axis=(0, 1), dtype=np.float64)
    return seen


def _values(model: Any, tensor: Any, kind: Any) -> Array:
    """What a constant tensor holds; nothing where it is none."""
    held = model.buffers[tensor.buffer].data
    if held is None:
        return np.empty(0)
    return np.frombuffer(bytes(held), kind).reshape(tensor.shape).astype(np.float64)


def _scales(weights: Any, kind: str) -> Array:
    """The scales of weights, shaped to be multiplied with them: outputs come last in depthwise ones, else first."""
    scales = np.array(weights.quantization.scale, np.float64)
    is_last = kind == "DEPTHWISE_CONV_2D" or len(scales) == 1
    return scales if is_last else scales.reshape(-1, *[1] * (len(weights.shape) - 1))
