"""The run behind `make results`: cell after cell with a progress display, then the document and its pictures."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from common.command import console
from common.files import write_atomic
from coordinator.dataset.synthetic import draw_slices
from coordinator.rehearsal.results import grid as grids
from coordinator.rehearsal.results.cells import Bench, Cell
from coordinator.rehearsal.results.document import Comparison, document
from coordinator.rehearsal.results.figures import exported, pooled
from coordinator.rehearsal.results.grid import Grid, Row
from coordinator.rehearsal.results.pictures import plot_rounds

if TYPE_CHECKING:
    from rich.console import Console

QUICK_IMAGES = 24
"""Drawn slices of each label that a quick run compares on."""
MOST_PROCESSES = 4
"""Each takes about a gigabyte."""
_Task: TypeAlias = tuple[Row, int, int]
"""A row, a seed and a fold."""


@dataclass(frozen=True)
class Order:
    """What to run: on a folder of images, or on drawn ones; cells go below `folder`, the document into `out`."""

    grid: Grid
    images: Path
    folder: Path
    out: Path
    title: str


def quick_order(folder: Path) -> Order:
    """Draw slices below `folder`, unless they are there, and compare on them."""
    images = folder / "images"
    if not images.exists():
        draw_slices(images, QUICK_IMAGES, grids.SEED, 64)
    return Order(grids.quick(), images, folder, folder, "A rehearsal of the results, on drawn slices")


def run(order: Order) -> Path:
    """Compute what is missing, and write `results.md` with its pictures; returns its path. Raises FedpiError."""
    cells = _compute(order, console(stderr=True))
    bench = Bench(order.grid, order.images, order.folder / "cells")
    found = [pooled(cells[row], bench.pool(row)) for row in order.grid.rows]
    order.out.mkdir(parents=True, exist_ok=True)
    for model in order.grid.recipes:
        plot_rounds([figures for figures in found if figures.row.model == model], order.out / f"results-{model}.png")
    variants = [variant for row in order.grid.rows for variant in exported(cells[row], bench.pool(row))]
    text = document(Comparison(order.grid, found, variants, bench.pool(order.grid.rows[0])), order.title)
    write_atomic(order.out / "results.md", text.encode())
    return order.out / "results.md"


def _compute(order: Order, out: "Console") -> dict[Row, list[Cell]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    tasks = [(row, seed, fold) for row in order.grid.rows for seed in row.seeds for fold in range(order.grid.folds)]
    cells = dict[_Task, Cell]()
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}", markup=False), *columns, console=out, transient=True) as progress:
        bar = progress.add_task("beginning", total=len(tasks))
        for task, cell in _computed(order, tasks):
            cells[task] = cell
            row, seed, fold = task
            progress.update(bar, description=f"{row.title}, seed {seed}, fold {fold + 1}", advance=1)
            if not out.is_terminal:
                out.print(f"{row.title} seed={seed} fold={fold + 1} {len(cells)} of {len(tasks)}")
    return {row: [cells[task] for task in tasks if task[0] == row] for row in order.grid.rows}


def _computed(order: Order, tasks: Sequence[_Task]) -> Iterator[tuple[_Task, Cell]]:
    """Yield cells as they are done: a process for each core, with a thread each.

    Small models in small batches keep one thread busy, not several.
    """
    pool = ProcessPoolExecutor(
        min(os.cpu_count() or 1, MOST_PROCESSES), multiprocessing.get_context("spawn"), _begin, (order,)
    )
    try:
        under_way = {pool.submit(_cell, *task): task for task in tasks}
        for future in as_completed(under_way):
            yield under_way[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_benches: list[Bench] = []
"""That of a process of the pool: it keeps decoded images and compiled models from cell to cell."""


def _begin(order: Order) -> None:
    os.environ |= dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"), "1")
    _benches.append(Bench(order.grid, order.images, order.folder / "cells"))


def _cell(row: Row, seed: int, fold: int) -> Cell:
    return _benches[0].cell(row, fold, seed)
