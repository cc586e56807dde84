"""The comparison behind `make results`, with the numpy model on drawn slices."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from common.config import convert
from common.errors import ConfigError
from common.learning.numpy_learner import numpy_learner
from coordinator.config import CoordinatorConfig, read_config
from coordinator.dataset.synthetic import draw_slices
from coordinator.rehearsal.results.cells import Bench, Cell, Measured
from coordinator.rehearsal.results.command import Order, run
from coordinator.rehearsal.results.document import Comparison, document, name_of
from coordinator.rehearsal.results.figures import Figures, pooled
from coordinator.rehearsal.results.folds import Pool, gather, make_folds, make_sites
from coordinator.rehearsal.results.grid import Grid, Recipe, Row, full, quick
from coordinator.rehearsal.results.simulation import Stage, simulate

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
COUNT = 12
CHUNK_BYTES = 4096
TRAINING: dict[str, Any] = {"epochs": 1, "learning_rate": 0.1, "schedule": {"name": "cosine", "rounds": 6}}
RECIPE = Recipe(
    model={"name": "numpy", "options": {"tensors": 2, "parameters": 4000, "frozen_tensors": 1}},
    training=TRAINING,
    rounds=6,
)
ONCE = Row(model="numpy", setting="once", sites=1)
ALONE = Row(model="numpy", setting="alone", sites=2)
FEDERATED = Row(model="numpy", setting="rounds", sites=2)
GRID = Grid(recipes={"numpy": RECIPE}, rows=(ONCE, ALONE, FEDERATED), folds=2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn slices, and a copy of each negative one."""
    folder = tmp_path_factory.mktemp("slices")
    draw_slices(folder, COUNT, 0, 48)
    for path in list((folder / "no").iterdir()):
        shutil.copyfile(path, path.with_name(f"twin-{path.name}"))
    return folder


@pytest.fixture(scope="module")
def pool(images: Path) -> Pool:
    return gather(images, 0)


@pytest.mark.parametrize("keep_twins", [True, False])
def test_every_image_is_tested_once_and_never_trained_on_in_that_fold(pool: Pool, keep_twins: bool) -> None:
    folds = make_folds(pool, 3, 1, keep_twins=keep_twins)
    tested = [name for fold in folds for name in pool.select(fold.test).names]
    assert sorted(tested) == sorted(pool.examples.names)
    for fold in folds:
        train, test = (set(pool.select(part).names) for part in (fold.train, fold.test))
        assert train | test == set(pool.examples.names)
        assert not train & test
        twins_apart = any(f"no/twin-{name.removeprefix('no/')}" in train for name in test)
        assert twins_apart != keep_twins


@pytest.mark.system
def test_a_run_writes_the_document_and_what_was_interrupted_goes_on(images: Path, tmp_path: Path) -> None:
    order = Order(GRID, images, tmp_path / "work", tmp_path / "out", "Drawn")
    page = run(order)
    first = page.read_text()
    assert all(name_of(row) in first for row in GRID.rows)
    assert (tmp_path / "out" / "results-numpy.png").stat().st_size > 0
    cells = sorted((tmp_path / "work" / "cells").iterdir())
    assert len(cells) == len(GRID.rows) * GRID.folds
    lost, *kept = cells
    lost.unlink()
    stamps = [path.stat().st_mtime_ns for path in kept]
    run(order)
    assert lost.exists()
    assert [path.stat().st_mtime_ns for path in kept] == stamps


@pytest.mark.parametrize("skew", ["none", "labels"])
def test_sites_share_the_training_images_out_and_have_both_labels(pool: Pool, skew: Any) -> None:
    fold = make_folds(pool, 3, 1, keep_twins=True)[0]
    sites = make_sites(pool, fold, 2, skew, 1)
    held = [name for site in sites.values() for name in site.train.names]
    assert sorted(held) == sorted(pool.select(fold.train).names)
    assert all(set(site.train.labels) == {0, 1} for site in sites.values())


def test_a_finished_cell_is_read_and_another_recipe_computes_it_anew(images: Path, tmp_path: Path) -> None:
    first = Bench(GRID, images, tmp_path).cell(FEDERATED, 0)
    (path,) = tmp_path.glob("*.json")
    marked = msgspec.structs.replace(first, names=("kept",) * len(first.names))
    path.write_bytes(msgspec.json.encode(marked))
    assert Bench(GRID, images, tmp_path).cell(FEDERATED, 0) == marked

    longer = msgspec.structs.replace(RECIPE, rounds=7)
    anew = Bench(msgspec.structs.replace(GRID, recipes={"numpy": longer}), images, tmp_path).cell(FEDERATED, 0)
    assert anew.names == first.names
    assert len(anew.models[0]) == 7


def test_a_torn_cell_is_computed_anew(images: Path, tmp_path: Path) -> None:
    (tmp_path / f"{ONCE.title}-seed-1-fold-1.json").write_bytes(b'{"row": ')
    assert Bench(GRID, images, tmp_path).cell(ONCE, 1).fold == 1


def test_sites_alone_give_a_model_each_and_one_training_one_measurement(images: Path, tmp_path: Path) -> None:
    bench = Bench(GRID, images, tmp_path)
    assert [len(course) for course in bench.cell(ALONE, 0).models] == [6, 6]
    assert [len(course) for course in bench.cell(ONCE, 0).models] == [1]


def test_one_training_has_the_epochs_of_all_rounds_at_the_full_rate_and_its_own_batches() -> None:
    recipe = msgspec.structs.replace(RECIPE, once={"batch_size": 3}, whole={"batch_size": 5})
    plan = recipe.config(ONCE).training_in(1)
    assert (plan.epochs, plan.learning_rate, plan.batch_size) == (6, 0.1, 3)
    whole = msgspec.structs.replace(FEDERATED, sites=1)
    assert [recipe.config(row).training_in(1).batch_size for row in (whole, ALONE)] == [5, 16]
    plan = recipe.config(FEDERATED).training_in(6)
    assert (plan.epochs, plan.batch_size) == (1, 16)
    assert plan.learning_rate == pytest.approx(0.001)


def test_only_chunks_that_changed_count_as_traffic(tmp_path: Path, pool: Pool) -> None:
    """Of two tensors of 8,000 bytes the first is frozen, and with it the first chunk of 4,096."""
    plain = {"federation": "f", "state": "s", "model": RECIPE.model, "training": TRAINING}
    config = convert({**plain, "transfer": {"chunk_bytes": CHUNK_BYTES}}, CoordinatorConfig, "test")
    learner = numpy_learner(RECIPE.model["options"])
    sites = make_sites(pool, make_folds(pool, 2, 1, keep_twins=True)[0], 2, "none", 1)
    done = list(simulate(config, Stage(learner, sites, tmp_path), learner.initial(0), 2))
    assert [(d.down, d.up) for d in done] == [(16_000, 2 * (16_000 - 4096)), (16_000 - 4096, 2 * (16_000 - 4096))]


def test_a_plan_that_keeps_tensors_on_devices_is_refused(tmp_path: Path, pool: Pool) -> None:
    training = {"personal": ["tensor-001"]}
    plain = {"federation": "f", "state": "s", "model": RECIPE.model, "training": training}
    config = convert(plain, CoordinatorConfig, "test")
    learner = numpy_learner(RECIPE.model["options"])
    sites = make_sites(pool, make_folds(pool, 2, 1, keep_twins=True)[0], 2, "none", 1)
    with pytest.raises(ConfigError, match="personal"):
        next(simulate(config, Stage(learner, sites, tmp_path), learner.initial(0), 1))


def foretold(pool: Pool, row: Row, *repeats: list[float]) -> Figures:
    """Figures of a row that gives the right answer with these probabilities, round after round, in each repeat."""
    cells = []
    for seed, rights in enumerate(repeats, 1):
        for fold in make_folds(pool, 2, seed, keep_twins=True):
            test = pool.select(fold.test)
            courses = tuple(
                Measured(
                    probabilities=tuple(np.where(test.labels == 1, right, 1 - right).tolist()),
                    down=10 * number,
                    up=20 * number,
                    seconds=float(number),
                )
                for number, right in enumerate(rights, 1)
            )
            cells.append(Cell(row=row, fold=fold.number, seed=seed, key="", names=test.names, models=(courses,)))
    return pooled(cells, pool)


def test_repeats_count_alike_and_swing_by_themselves(pool: Pool) -> None:
    """Two courses that swing against each other are steady in the mean, and yet each of them is not."""
    figures = foretold(pool, FEDERATED, [0.9, 0.1, 0.9, 0.1, 0.9], [0.1, 0.9, 0.1, 0.9, 0.1])
    assert figures.auc_by_round == (0.5,) * 5
    assert (figures.auc.value, figures.accuracy.value, figures.auc_by_repeat) == (0.5, 0.5, (1.0, 0.0))
    assert figures.swing == pytest.approx(np.std([0, 1, 0, 1, 0]))
    assert (figures.down[-1], figures.seconds[-1]) == (50.0, 5.0)


def test_each_repeat_has_folds_sites_and_a_beginning_of_its_own(images: Path, tmp_path: Path) -> None:
    bench = Bench(GRID, images, tmp_path)
    first, second = bench.cell(FEDERATED, 0), bench.cell(FEDERATED, 0, 2)
    assert first.names != second.names
    assert RECIPE.config(FEDERATED, 2).training_in(1).seed != RECIPE.config(FEDERATED).training_in(1).seed
    more = msgspec.structs.replace(FEDERATED, repeats=2)
    assert Bench(GRID, images, tmp_path).cell(more, 0) == first
    assert len(list(tmp_path.iterdir())) == 2


def test_folds_are_pooled_and_the_last_round_counts(pool: Pool) -> None:
    figures = foretold(pool, FEDERATED, [0.1, 0.9, 0.1, 0.9, 0.9, 0.9])
    assert figures.auc_by_round == (0.0, 1.0, 0.0, 1.0, 1.0, 1.0)
    assert (figures.accuracy.value, figures.accuracy.low, figures.accuracy.high) == (1.0, 1.0, 1.0)
    assert (figures.sensitivity.value, figures.specificity.value) == (1.0, 1.0)
    assert (figures.down[-1], figures.up[-1], figures.seconds[-1]) == (60.0, 120.0, 6.0)
    assert figures.swing == pytest.approx(0.4)
    assert (figures.reached(1.0), figures.reached(1.02)) == (2, None)


def test_few_rounds_have_no_swing(pool: Pool) -> None:
    assert foretold(pool, FEDERATED, [0.4]).swing is None


def test_near_copies_are_drawn_together_so_that_they_narrow_no_interval(pool: Pool) -> None:
    """A quarter of 12 pairs is wrong: as 12 images the interval is about .49 wide, as 24 it would be .35."""
    cells = []
    for fold in make_folds(pool, 2, 1, keep_twins=True):
        test = pool.select(fold.test)
        is_wrong = np.array([name.endswith(("_000.png", "_001.png", "_002.png")) for name in test.names])
        found = tuple(np.where(is_wrong == (test.labels == 1), 0.1, 0.9).tolist())
        course = (Measured(probabilities=found, down=0, up=0, seconds=0.0),)
        cells.append(Cell(row=ONCE, fold=fold.number, seed=1, key="", names=test.names, models=(course,)))
    specificity = pooled(cells, pool).specificity
    assert specificity.value == 0.75
    assert 0.42 < specificity.high - specificity.low < 0.56


def test_the_document_has_a_line_for_every_row_and_says_what_was_reached(pool: Pool) -> None:
    grid = Grid(recipes={"simple_cnn": RECIPE}, rows=(), folds=2)
    once = msgspec.structs.replace(ONCE, model="simple_cnn")
    rows = [once, *(msgspec.structs.replace(FEDERATED, model="simple_cnn", skew=skew) for skew in ("none", "labels"))]
    found = [foretold(pool, row, [0.9]) for row in rows[:2]] + [foretold(pool, rows[2], [0.1])]
    found.append(foretold(pool, msgspec.structs.replace(rows[1], keep_twins=False), [0.9]))
    text = document(Comparison(grid, found, (), pool), "Results")
    lines = [line for line in text.splitlines() if line.startswith(("| together", "| parted"))]
    assert [line.split(" | ")[1] for line in lines] == [name_of(figures.row) for figures in found]
    assert [line.split(" | ")[-1] for line in lines] == ["- |", "1: 0.0 MB, 1 s |", "not |", "- |"]
    assert "89 %" in text
    assert "The model: tensors 2, parameters 4000, frozen tensors 1. A round: epochs 1" in text
    assert "TFLite" not in text


def test_both_grids_name_each_row_once_and_make_sound_configurations() -> None:
    for grid in (full("imagenet"), quick()):
        assert len({row.title for row in grid.rows}) == len(grid.rows)
        for row in grid.rows:
            grid.recipes[row.model].config(row)


def test_the_documented_configuration_is_what_was_compared() -> None:
    documented = read_config(ROOT / "config/coordinator-mobilenet.yaml")
    compared = full("imagenet").recipes["mobilenet_v2"].config(Row(model="mobilenet_v2", setting="rounds", sites=5))
    assert documented.strategy == compared.strategy
    assert documented.training == msgspec.structs.replace(compared.training, seed=documented.training.seed)
    assert [config.model.options["image_size"] for config in (documented, compared)] == [128, 128]
