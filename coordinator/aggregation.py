"""The mean of the updates, block by block over their files: memory does not grow with model or fleet.

Blocks are summed in float64 in the order of the sorted device ids, so the same updates give the same
bytes whatever order they arrived in.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from common.errors import DataError
from common.weights import Segment, Spec, Tensor, segments

BLOCK_BYTES = 2**16
"""Small enough that every buffer comes from memory that the process holds already."""


@dataclass(frozen=True)
class Contribution:
    """One device's stored update and its weight in the mean, the number of its examples."""

    device: str
    path: Path
    weight: float


def federated_average(base: Path, contributions: Sequence[Contribution], spec: Spec) -> Iterator[bytes]:
    """Yield base + sum(weight_k * update_k) / sum(weight_k), block by block (FedAvg: McMahan et al. 2017, algorithm 1).

    Raises OSError when a file cannot be read, DataError when one is too short or the mean is out of its dtype's range.
    """
    ordered = sorted(contributions, key=lambda c: c.device)
    weights = [c.weight for c in ordered]
    with ExitStack() as stack:
        base_file = stack.enter_context(base.open("rb"))
        files = [stack.enter_context(c.path.open("rb")) for c in ordered]
        for segment in segments(spec, BLOCK_BYTES):
            mean = _weighted_sum(files, weights, segment)
            mean /= float(sum(weights))
            yield _add(_read(base_file, segment), mean).tobytes()


def _weighted_sum(files: Sequence[IO[bytes]], weights: Sequence[float], segment: Segment) -> NDArray[np.float64]:
    total = np.zeros(segment.nbytes // segment.dtype.itemsize)
    product = np.empty_like(total)
    for file, weight in zip(files, weights, strict=True):
        np.multiply(_read(file, segment), weight, out=product, dtype=np.float64)
        total += product
    return total


def _add(base: Tensor, mean: NDArray[np.float64]) -> Tensor:
    if base.dtype.kind != "f":  # counters and the like: the nearest whole number, without a detour of the base
        moved: Tensor = base + np.rint(mean).astype(np.int64).astype(base.dtype)
        return moved
    with np.errstate(over="ignore"):
        moved = (base.astype(np.float64) + mean).astype(base.dtype)
    if not np.isfinite(moved).all():
        raise DataError(f"the mean of the updates is out of the range of {base.dtype.name}")
    return moved


def _read(file: IO[bytes], segment: Segment) -> Tensor:
    if len(data := os.pread(file.fileno(), segment.nbytes, segment.offset)) != segment.nbytes:
        raise DataError(f"{file.name}: the file is too short")
    return np.frombuffer(data, segment.dtype)
