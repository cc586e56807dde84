"""A look into a TFLite file, and the same model in fewer bytes: what stands in it several times is written once."""

from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from common.learning.framework import flatbuffer_utils

BIASED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
"""Operators whose second and third input are weights and bias."""


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]  # FlatBuffers ships no types
    """Points to a vector that was written before instead of writing it again, as FlatBuffers allows."""

    def __init__(self) -> None:
        super().__init__(2**16)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: NDArray[Any]) -> int:  # noqa: N802 - the library's name
        """Write `x`, or return where it stands."""
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            self._written[key] = int(super().CreateNumpyVector(np.asarray(x)))
        return self._written[key]


def slim(content: bytes) -> bytes:
    """Share equal vectors, drop the names of tensors, which no interpreter reads, and the scales of biases.

    A quantised channel has zero points of 8 bytes each for weights and bias, all of them 0, and a scale of 4 bytes
    each. A kernel multiplies by input scale x weight scale / output scale; of the scales of a bias it reads none,
    but the loader and XNNPACK want one a channel: they get those of the weights, which stand in the file anyway.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    flatbuffer_utils.strip_strings(model)
    for graph in model.subgraphs:
        for operator in graph.operators:
            if flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex) in BIASED:
                _lend_scales(*(graph.tensors[place] for place in operator.inputs[1:3] if place >= 0))
    builder = _SharingBuilder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _lend_scales(weights: Any, bias: Any = None) -> None:
    """Give a bias of several scales those of the weights. A single one stays: of that kernels check the value."""
    if bias is None or weights.quantization is None or bias.quantization is None:
        return
    scales = weights.quantization.scale
    if scales is not None and bias.quantization.scale is not None and len(bias.quantization.scale) == len(scales) > 1:
        bias.quantization.scale = scales


def float_operators(content: bytes) -> list[str]:
    """Name the kinds of operators that compute in floats, but for the one that gives the result back as a float."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    kinds = {
        flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
        for graph in model.subgraphs
        for operator in graph.operators
        if any(graph.tensors[place].type == flatbuffer_utils.schema_fb.TensorType.FLOAT32 for place in operator.outputs)
    }
    return sorted(kinds - {"DEQUANTIZE"})
