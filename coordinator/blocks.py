"""The next global model block by block, a few blocks at a time, in memory that is taken once."""

import itertools
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from common.errors import DataError
from common.weights import Segment, Spec, Tensor, TensorSpec, nbytes, segments
from coordinator.strategies.krum import squared_distances
from coordinator.strategies.strategy import Matrix, Strategy, Vector

BLOCK_BYTES = 2**18
"""Large enough that NumPy's own costs vanish, small enough that every buffer stays in a Pi's cache."""
STACK_BYTES = 2**23
"""What the blocks of all devices together may take where a strategy needs them side by side."""
LEAST_BLOCK_BYTES = 2**10
THREADS = 2
"""Blocks at a time where a block is much work: NumPy does it without Python's lock."""
MANY_UPDATES = 16
"""From so many on a mean is much work; of fewer it is done before its blocks are hashed and written."""
STATISTICS = ("moving_mean", "moving_variance", "running_mean", "running_var")
"""Ends of names of tensors that are measured, not trained: a server optimiser would drive variances below zero."""


@dataclass(frozen=True)
class Block:
    """The next stretch of the new global model, and of the strategy's moments: bytes.

    Moments are float64, value by value, all moments of a value side by side.
    """

    model: bytes
    moments: bytes


@dataclass(frozen=True)
class Sources:
    """The files of an aggregation, all laid out by `spec`, and the weights of the updates."""

    spec: Spec
    base: Path
    updates: Sequence[Path]
    weights: Vector
    moments: Path | None


def blocks(sources: Sources, strategy: Strategy) -> Generator[Block, None, None]:
    """Yield the blocks in their order. Raises DataError where a file cannot be read or a value is too large."""
    threads = THREADS if strategy.has_stack or len(sources.updates) >= MANY_UPDATES else 1
    limit = _stack_limit(len(sources.updates)) if strategy.has_stack else BLOCK_BYTES // threads
    tasks = list(_tasks(sources.spec, strategy, limit))
    most = max((task.segment.nbytes for task in tasks), default=0), max((task.values for task in tasks), default=0)
    with ExitStack() as stack:
        base, *updates = [_opened(stack, path) for path in (sources.base, *sources.updates)]
        moments = _opened(stack, sources.moments) if sources.moments and strategy.fresh_moments else None
        desks = deque(_Desk(len(updates) if strategy.has_stack else 1, *most) for _ in range(threads))
        workshop = _Workshop(base, updates, moments, sources.weights, strategy, desks)
        pool = stack.enter_context(ThreadPoolExecutor(threads, "block"))
        under_way: deque[Future[Block]] = deque()
        for task in tasks:
            under_way.append(pool.submit(workshop.make, task))
            if len(under_way) > threads:
                yield under_way.popleft().result()
        for future in under_way:
            yield future.result()


def distances(updates: Sequence[Path], spec: Spec) -> Matrix:
    """Return the updates' squared distances from each other `[n, n]`. Raises DataError where a file cannot be read."""
    count = len(updates)
    limit = _stack_limit(4 * count)  # differences take more than the updates
    desk = _Desk(count, limit, 0)
    total = np.zeros((count, count))
    with ExitStack() as stack:
        files = [_opened(stack, path) for path in updates]
        for segment in segments(spec, limit):
            rows = zip(files, desk.rows(segment), strict=True)
            total += squared_distances(np.stack([_read(file, segment, row) for file, row in rows]))
    return total


@dataclass(frozen=True)
class _Task:
    """A segment, the number of values in it and before it, and whether they are trained."""

    segment: Segment
    values: int
    start: int
    is_trained: bool


def _tasks(spec: Spec, strategy: Strategy, limit: int) -> Iterator[_Task]:
    """Cut the blob; where the strategy remembers anything, trained tensors and others are kept apart."""
    offset = start = 0
    for is_trained, tensors in itertools.groupby(spec, _is_trained if strategy.fresh_moments else lambda _: True):
        run = tuple(tensors)
        for part in segments(run, limit):
            values = part.nbytes // part.dtype.itemsize
            yield _Task(Segment(offset + part.offset, part.nbytes, part.dtype), values, start, is_trained)
            start += values
        offset += nbytes(run)


def _is_trained(tensor: TensorSpec) -> bool:
    return tensor.dtype.startswith("float") and not tensor.name.endswith(STATISTICS)


def _stack_limit(rows: int) -> int:
    return max(min(STACK_BYTES // max(rows, 1), BLOCK_BYTES), LEAST_BLOCK_BYTES)


class _Desk:
    """The memory to make a block in, taken once: a thread's allocator gives large blocks back after every use."""

    def __init__(self, rows: int, row_bytes: int, values: int) -> None:
        self._raw = np.empty((rows, row_bytes), np.uint8)
        self._scratch = np.empty(2 * values)

    def scratch(self, values: int) -> Matrix:
        """Return two rows of float64."""
        return self._scratch[: 2 * values].reshape(2, values)

    def rows(self, segment: Segment) -> Sequence[Tensor]:
        """Return as many rows as there are, each to hold a segment."""
        return [row.view(segment.dtype) for row in self._raw[:, : segment.nbytes]]


@dataclass(frozen=True)
class _Workshop:
    """Everything that blocks are made of, and a desk for each thread that works here."""

    base: IO[bytes]
    updates: Sequence[IO[bytes]]
    moments: IO[bytes] | None
    weights: Vector
    strategy: Strategy
    desks: deque[_Desk]

    def make(self, task: _Task) -> Block:
        """Make one block."""
        desk = self.desks.pop()
        try:
            update = self._combine(task, desk)
            before = self._moments(task)
            move, after = self.strategy.advance(update, before) if task.is_trained else (update, before)
            base = _read(self.base, task.segment, desk.rows(task.segment)[0])
            return Block(_add(base, move).tobytes(), after.T.tobytes())
        finally:
            self.desks.append(desk)

    def _combine(self, task: _Task, desk: _Desk) -> Vector:
        rows = itertools.cycle(desk.rows(task.segment))
        read = (_read(file, task.segment, row) for file, row in zip(self.updates, rows, strict=False))
        return self.strategy.combine(read, self.weights, desk.scratch(task.values))

    def _moments(self, task: _Task) -> Matrix:
        """Read the moments `[k, values]`; as they are at first where there is no file."""
        fresh = self.strategy.fresh_moments
        if self.moments is None:
            return np.repeat(np.array(fresh, np.float64)[:, None], task.values, axis=1)
        width = 8 * len(fresh)
        data = os.pread(self.moments.fileno(), width * task.values, width * task.start)
        if len(data) != width * task.values:
            raise DataError(f"{self.moments.name}: the file is too short")
        return np.ascontiguousarray(np.frombuffer(data, "<f8").reshape(task.values, len(fresh)).T)


def _opened(stack: ExitStack, path: Path) -> IO[bytes]:
    try:
        return stack.enter_context(path.open("rb"))
    except OSError as error:
        raise DataError(f"{path}: cannot read: {error.strerror}") from error


def _read(file: IO[bytes], segment: Segment, row: Tensor) -> Tensor:
    if os.preadv(file.fileno(), [row.data], segment.offset) != segment.nbytes:
        raise DataError(f"{file.name}: the file is too short")
    return row


def _add(base: Tensor, move: Vector) -> Tensor:
    """Add `move`; the memory of both is used up."""
    if base.dtype.kind != "f":  # counters and the like: the nearest whole number, without a detour of the base
        moved: Tensor = base + np.rint(move).astype(np.int64).astype(base.dtype)
        return moved
    move += base
    with np.errstate(over="ignore"):
        np.copyto(base, move, casting="same_kind")
    if not np.isfinite(base).all():
        raise DataError(f"the new global model is out of the range of {base.dtype.name}")
    return base
