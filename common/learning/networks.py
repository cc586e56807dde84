"""Which built-in model a weight file is of: by the layers and the image size that it describes, or by its tensors."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.learning.outline import size_of
from common.learning.weight_files import WeightFile

Shape = tuple[int, ...]
CNN_KERNELS: tuple[Shape, ...] = ((3, 3, 3, 8), (3, 3, 8, 16), (3, 3, 16, 32))
EXTRA_KERNEL: Shape = (3, 3, 32, 32)
DENSE_UNITS = 32
LEAST_SIZE = 16
MOBILENET_WIDTHS = (16, 24, 32, 64, 96, 160, 320)
"""Channels of MobileNetV2's blocks at `alpha` 1."""
MOBILENET_TOP = 1280
ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4, *(step / 100 for step in range(10, 201)))
"""First those that pretrained weights exist for. Two with the same channels give the same network."""


@dataclass(frozen=True)
class Network:
    """A built-in model, and the values that its options may have: any, where an option is not among them."""

    name: str
    options: Mapping[str, Sequence[Any]]


def recognise(file: WeightFile) -> Network | None:
    """Return which built-in model a file is of by the shapes of its tensors; None where it is of none.

    That the names and the rest of the layers agree is for the reader of the weights to see.
    """
    shapes = [tensor.shape for tensor in file.tensors.values()]
    size = size_of(file.network) if file.network is not None else None
    sizes = [size] if size is not None else _cnn_sizes(shapes)
    if sizes and all(shapes.count(kernel) == 1 for kernel in CNN_KERNELS):
        return Network("extra_dense_cnn" if EXTRA_KERNEL in shapes else "simple_cnn", {"image_size": sizes})
    if alphas := list(_alphas([shape for shape in shapes if len(shape) == 4])):
        return Network("mobilenet_v2", {"alpha": alphas, **({"image_size": [size]} if size is not None else {})})
    return None


def _cnn_sizes(shapes: Sequence[Shape]) -> Sequence[int]:
    """The first dense kernel has a row for each channel and pixel of an image that was halved thrice, rounded down."""
    rows = max((shape[0] for shape in shapes if len(shape) == 2 and shape[1] == DENSE_UNITS), default=0)
    side = math.isqrt(rows // CNN_KERNELS[-1][-1])
    return range(max(8 * side, LEAST_SIZE), 8 * side + 8) if side else ()


def _alphas(kernels: Sequence[Shape]) -> Iterator[float]:
    first = [shape[3] for shape in kernels if shape[:3] == (3, 3, 3)]
    ends = [shape for shape in kernels if shape[:2] == (1, 1) and shape[3] >= MOBILENET_TOP]
    channels = {shape[3] for shape in kernels}
    if len(first) == 1 and len(ends) == 1:
        for alpha in ALPHAS:
            widths = [_width(int(width * alpha)) for width in MOBILENET_WIDTHS]
            top = _width(MOBILENET_TOP * alpha) if alpha > 1 else MOBILENET_TOP
            if first[0] == _width(32 * alpha) and ends[0][2:] == (widths[-1], top) and channels.issuperset(widths):
                yield alpha


def _width(channels: float) -> int:
    """Round to a multiple of 8 that is not less than 90 % of it, as MobileNetV2 does."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
