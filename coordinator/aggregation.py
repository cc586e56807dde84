"""The mean of the updates, block by block over their files: memory does not grow with model or fleet.

Blocks are summed in float64 in the order of the sorted device ids, so the same updates give the same
bytes whatever order they arrived in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from common.weights import Segment, Spec, segments

BLOCK_BYTES = 2**18


@dataclass(frozen=True)
class Contribution:
    """One device's stored update and its weight in the mean, the number of its examples."""

    device: str
    path: Path
    weight: float


def federated_average(base: Path, contributions: Sequence[Contribution], spec: Spec, out: Path) -> None:
    """Write base + sum(weight_k * update_k) / sum(weight_k) to `out` (FedAvg: McMahan et al. 2017, algorithm 1).

    Raises OSError when a file cannot be read or written.
    """
    ordered = sorted(contributions, key=lambda c: c.device)
    total = float(sum(c.weight for c in ordered))
    files = [c.path.open("rb") for c in ordered]
    try:
        with base.open("rb") as base_file, out.open("wb") as out_file:
            for segment in segments(spec, BLOCK_BYTES):
                mean = _weighted_sum(files, [c.weight for c in ordered], segment) / total
                out_file.write(_add(_read(base_file, segment), mean).tobytes())
    finally:
        for file in files:
            file.close()


def _weighted_sum(files: Sequence[IO[bytes]], weights: Sequence[float], segment: Segment) -> NDArray[np.float64]:
    total = np.zeros(segment.nbytes // segment.dtype.itemsize)
    for file, weight in zip(files, weights, strict=True):
        total += weight * _read(file, segment).astype(np.float64)
    return total


def _add(base: NDArray[np.generic], mean: NDArray[np.float64]) -> NDArray[np.generic]:
    moved = base.astype(np.float64) + mean
    if base.dtype.kind != "f":  # counters and the like: the nearest whole number
        moved = np.rint(moved)
    return moved.astype(base.dtype)


def _read(file: IO[bytes], segment: Segment) -> NDArray[np.generic]:
    file.seek(segment.offset)
    return np.frombuffer(file.read(segment.nbytes), segment.dtype)
