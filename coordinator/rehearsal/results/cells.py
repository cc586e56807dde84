"""The cells of the comparison, a row in a fold each: computed once, kept as files, skipped when they are there."""

import hashlib
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from common.files import write_atomic
from common.learning.seam import Images, Learner, Site, build
from common.weights import Tensor
from coordinator.config import CoordinatorConfig
from coordinator.rehearsal.results.exports import Exported, Model, export
from coordinator.rehearsal.results.folds import Pool, gather, make_folds, make_sites
from coordinator.rehearsal.results.grid import SEED, Grid, Recipe, Row
from coordinator.rehearsal.results.simulation import Stage, simulate

Probabilities = Annotated[tuple[float, ...], msgspec.Meta(min_length=1)]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A model after a round: its probabilities of the test images; bytes and seconds of a core from the start."""

    probabilities: Probabilities
    down: int
    up: int
    seconds: float


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A row in a fold. `models` has one course of rounds, of sites alone one a site."""

    row: Row
    fold: int
    seed: int
    key: str
    """Digest of all that the figures depend on: a cell of other images or recipes is computed anew."""
    names: tuple[str, ...]
    """The test images, as those of `Measured`."""
    models: tuple[tuple[Measured, ...], ...]
    exports: tuple[Exported, ...] = ()
    """The last model's, where the row asks for them; calibrated on what the first site trained on."""


class Bench:
    """Computes cells; images are decoded once a size, a model is compiled once."""

    def __init__(self, grid: Grid, images: Path, folder: Path) -> None:
        self._grid, self._images, self._folder = grid, images, folder
        self._pools: dict[int, Pool] = {}
        self._learners: dict[str, Learner] = {}

    def pool(self, row: Row) -> Pool:
        """Return the images as `row`'s model takes them."""
        size = self._learner(self._grid.recipes[row.model]).image_size
        if size not in self._pools:
            self._pools[size] = gather(self._images, size)
        return self._pools[size]

    def cell(self, row: Row, fold: int, seed: int = SEED) -> Cell:
        """Read the cell's file or, where there is none that fits, compute it and write one. Raises FedpiError."""
        path = self._folder / f"{row.title}-seed-{seed}-fold-{fold}.json"
        key = self._key(row, seed)
        if path.exists() and (cell := _read(path)) is not None and cell.key == key:
            return cell
        cell = msgspec.structs.replace(self._compute(row, fold, seed), key=key)
        write_atomic(path, msgspec.json.encode(cell))
        return cell

    def _compute(self, row: Row, number: int, seed: int) -> Cell:
        pool, recipe = self.pool(row), self._grid.recipes[row.model]
        fold = make_folds(pool, self._grid.folds, seed, keep_twins=row.keep_twins)[number]
        test, sites = pool.select(fold.test), make_sites(pool, fold, row.sites, row.skew, seed)
        alone = [{name: site} for name, site in sites.items()] if row.setting == "alone" else [sites]
        config, rounds = recipe.config(row, seed), 1 if row.setting == "once" else recipe.rounds
        courses = [self._course(config, rounds, present, test.images) for present in alone]
        exports: tuple[Exported, ...] = ()
        if row.exports:
            model = Model(self._learner(recipe), courses[-1].weights, sites[min(sites)].train.images)
            exports = export(model, row.exports, test.images)
        models = tuple(course.measured for course in courses)
        return Cell(row=row, fold=number, seed=seed, key="", names=test.names, models=models, exports=exports)

    def _course(self, config: CoordinatorConfig, rounds: int, sites: Mapping[str, Site], test: Images) -> "_Course":
        """Train, and measure after every round; seconds of a core are those of training and aggregation alone."""
        learner = self._learners[config.model.name]
        down = up = 0
        measured, weights = [], list[Tensor]()
        with tempfile.TemporaryDirectory(prefix="fedpi-results-") as folder:
            stage = Stage(learner, sites, Path(folder))
            course = simulate(config, stage, learner.initial(config.training.seed), rounds)
            spent, since = 0.0, time.process_time()
            for done in course:
                weights = done.weights
                spent += time.process_time() - since
                down, up = down + done.down, up + done.up
                found = tuple(round(float(value), 6) for value in learner.predict(weights, test))
                measured.append(Measured(probabilities=found, down=down, up=up, seconds=round(spent, 3)))
                since = time.process_time()
        return _Course(tuple(measured), weights)

    def _learner(self, recipe: Recipe) -> Learner:
        name = str(recipe.model["name"])
        if name not in self._learners:
            self._learners[name] = build(recipe.config(self._grid.rows[0]).model, {})
        return self._learners[name]

    def _key(self, row: Row, seed: int) -> str:
        pool, plain = self.pool(row), msgspec.structs.replace(row, repeats=1)
        known = (self._grid.folds, seed, plain, self._grid.recipes[row.model], pool.examples.names)
        digest = hashlib.sha256(msgspec.json.encode(known))
        digest.update(pool.examples.images.tobytes())
        return digest.hexdigest()[:32]


@dataclass(frozen=True)
class _Course:
    """What a training came to after every round, and the weights of the last."""

    measured: tuple[Measured, ...]
    weights: list[Tensor]


def _read(path: Path) -> Cell | None:
    """Read a cell; None for a file of another version of this program."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Cell)
    except msgspec.MsgspecError:
        return None
