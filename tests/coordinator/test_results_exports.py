"""The TFLite part of the comparison behind `make results`."""

from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest

from common.errors import ConfigError
from common.learning.seam import Variant
from coordinator.dataset.synthetic import draw_slices
from coordinator.rehearsal.results.cells import Bench, Cell, Measured
from coordinator.rehearsal.results.document import variant_table
from coordinator.rehearsal.results.exports import Exported
from coordinator.rehearsal.results.figures import exported
from coordinator.rehearsal.results.folds import Pool, gather, make_folds
from coordinator.rehearsal.results.grid import Grid, Recipe, Row, full, quick

ROW = Row(model="simple_cnn", setting="rounds", sites=2, exports=get_args(Variant))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices")
    draw_slices(folder, 12, 0, 48)
    return folder


@pytest.fixture(scope="module")
def pool(images: Path) -> Pool:
    return gather(images, 16)


def foretold(pool: Pool) -> list[Cell]:
    """Two folds in which Keras and float32 are right throughout, and int8 wrong about a fold's first image."""
    cells = []
    for fold in make_folds(pool, 2, 1, keep_twins=True):
        test = pool.select(fold.test)
        right = np.where(test.labels == 1, 0.9, 0.1)
        wrong = np.where(np.arange(len(right)) == 0, 1 - right, right)
        exports = (
            Exported(
                variant="float32",
                size=4000,
                probabilities=tuple(right.tolist()),
                max_difference=1e-6 + 1e-6 * fold.number,
                milliseconds=2.0,
            ),
            Exported(
                variant="int8",
                size=1000 + 40 * fold.number,
                probabilities=tuple(wrong.tolist()),
                max_difference=0.8,
                milliseconds=0.5,
            ),
        )
        measured = (Measured(probabilities=tuple((1 - right).tolist()), down=0, up=0, seconds=0.0),) * 2
        course = (*measured, Measured(probabilities=tuple(right.tolist()), down=0, up=0, seconds=0.0))
        cells.append(
            Cell(row=ROW, fold=fold.number, seed=1, key="", names=test.names, models=(course,), exports=exports),
        )
    return cells


def test_variants_are_pooled_over_the_folds_and_compared_with_the_last_round(pool: Pool) -> None:
    whole, small = exported(foretold(pool), pool)
    assert (whole.variant, whole.accuracy.value, whole.other_labels) == ("float32", 1.0, 0)
    assert whole.max_difference == pytest.approx(2e-6)
    assert (small.variant, small.size, small.other_labels, small.milliseconds) == ("int8", 1020, 2, 0.5)
    assert small.accuracy.value == pytest.approx(22 / 24)
    assert small.accuracy.low < small.accuracy.value < small.accuracy.high
    assert small.auc.value < 1


def test_the_table_has_a_line_for_each_variant_with_its_share_of_float32(pool: Pool) -> None:
    lines = variant_table(exported(foretold(pool), pool)).splitlines()
    assert lines[2].startswith("| `simple_cnn` | float32 | 4 | 100.0 % | 1.000 [1.00, 1.00] |")
    assert lines[3].startswith("| `simple_cnn` | int8 | 1 | 25.5 % | 0.917 [")
    assert lines[3].endswith("| 2.0 | 0.8 | 0.50 |")


def test_a_row_that_was_not_exported_has_no_variants(pool: Pool) -> None:
    cells = [msgspec.structs.replace(cell, exports=()) for cell in foretold(pool)]
    assert exported(cells, pool) == []


def test_both_grids_export_one_row_of_each_model_with_near_copies_together() -> None:
    for grid in (full("imagenet"), quick()):
        rows = [row for row in grid.rows if row.exports]
        assert [row.model for row in rows] == list(grid.recipes)
        assert all(row.exports[0] == "float32" and row.exports[-1] == "int8" for row in rows)
        assert all(row.keep_twins and row.setting == "rounds" and row.sites > 1 for row in rows)


def test_a_model_without_files_cannot_be_exported(images: Path, tmp_path: Path) -> None:
    recipe = Recipe(model={"name": "numpy", "options": {"tensors": 1, "parameters": 10}}, training={}, rounds=1)
    row = Row(model="numpy", setting="rounds", sites=2, exports=("float32",))
    with pytest.raises(ConfigError, match="leave exports out"):
        Bench(Grid(recipes={"numpy": recipe}, rows=(row,), folds=2), images, tmp_path).cell(row, 0)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_cell_holds_every_variant_of_its_last_model(images: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        model={"name": "simple_cnn", "options": {"image_size": 16}}, training={"epochs": 1, "batch_size": 4}, rounds=2
    )
    grid = Grid(recipes={"simple_cnn": recipe}, rows=(ROW,), folds=2)
    cell = Bench(grid, images, tmp_path).cell(ROW, 0)
    assert [found.variant for found in cell.exports] == list(get_args(Variant))
    keras, first = (np.array(measured.probabilities) for measured in (cell.models[0][-1], cell.models[0][0]))
    assert np.abs(keras - first).max() > 1e-4
    for found in cell.exports:
        assert np.abs(np.array(found.probabilities) - keras).max() == pytest.approx(found.max_difference, abs=2e-6)
        assert found.max_difference < (1e-5 if found.variant == "float32" else 0.02)
        assert found.milliseconds > 0
    assert cell.exports[3].size < cell.exports[0].size

    assert Bench(grid, images, tmp_path).cell(ROW, 0) == cell
    plain = Row(model="simple_cnn", setting="rounds", sites=2)
    assert Bench(grid, images, tmp_path).cell(plain, 0).exports == ()
