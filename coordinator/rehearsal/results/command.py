"""The run behind `make results`: cell after cell with a progress display, then the document and its pictures."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
    bench = Bench(order.grid, order.images, order.folder / "cells")
    cells = _compute(bench, console(stderr=True))
    found = [pooled(cells[row], bench.pool(row)) for row in order.grid.rows]
    order.out.mkdir(parents=True, exist_ok=True)
    for model in order.grid.recipes:
        plot_rounds([figures for figures in found if figures.row.model == model], order.out / f"results-{model}.png")
    variants = [variant for row in order.grid.rows for variant in exported(cells[row], bench.pool(row))]
    text = document(Comparison(order.grid, found, variants, bench.pool(order.grid.rows[0])), order.title)
    write_atomic(order.out / "results.md", text.encode())
    return order.out / "results.md"


def _compute(bench: Bench, out: "Console") -> dict[Row, list[Cell]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    tasks, cells = list(bench), dict[Row, list[Cell]]()
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}", markup=False), *columns, console=out, transient=True) as progress:
        bar = progress.add_task("beginning", total=len(tasks))
        for row, fold in tasks:
            since = time.monotonic()
            progress.update(bar, description=f"{row.title}, fold {fold + 1}")
            cells.setdefault(row, []).append(bench.cell(row, fold))
            progress.advance(bar)
            if not out.is_terminal:
                out.print(f"{row.title} fold={fold + 1} s={time.monotonic() - since:.1f}")
    return cells
