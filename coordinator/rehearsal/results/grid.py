"""What is compared: models, splits and sites, and how each is trained. Pure."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from common.config import convert
from common.learning.seam import Variant
from coordinator.config import CoordinatorConfig
from coordinator.dataset.partition import Skew

Setting: TypeAlias = Literal["once", "alone", "rounds"]
"""`once`: all images in one training; `alone`: each site by itself; `rounds`: a federation, or one site with all."""
SEED = 1
REPEATS = {
    "simple_cnn": {("rounds", 2, "none", False): 3},
    "mobilenet_v2": {
        ("once", 1, "none", True): 3,
        ("rounds", 1, "none", True): 3,
        ("rounds", 5, "none", True): 3,
        ("rounds", 10, "labels", True): 2,
    },
}
"""Of the rows that claims are read from: setting, sites, skew and whether near copies are kept together."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table: one way to train a model."""

    model: str
    setting: Setting
    sites: int
    skew: Skew = "none"
    keep_twins: bool = True
    repeats: int = 1
    """How often it is done, each time with another seed of folds, sites, initial weights and training."""
    exports: tuple[Variant, ...] = ()
    """The TFLite variants that the last model is measured as too, float32 first."""

    @property
    def seeds(self) -> range:
        """Those of the repeats."""
        return range(SEED, SEED + self.repeats)

    @property
    def title(self) -> str:
        """What it is called in file names."""
        twins = "together" if self.keep_twins else "parted"
        return f"{self.model}-{self.setting}-{self.sites}-{self.skew}-{twins}"


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is trained, in the words of the coordinator's configuration; `epochs` are those of a round."""

    model: Mapping[str, Any]
    training: Mapping[str, Any]
    rounds: int
    once: Mapping[str, Any] = {}
    """What is otherwise where all images are trained on in one piece: many images want larger batches than few."""
    whole: Mapping[str, Any] = {}
    """What is otherwise where one site holds all images and trains in rounds."""
    strategy: Mapping[str, Any] = msgspec.field(default_factory=lambda: {"name": "fedavg"})
    """Where updates of several sites are averaged; a site by itself goes on from its own last step."""

    def config(self, row: Row, seed: int = SEED) -> CoordinatorConfig:
        """Return what a coordinator would be given; a training in one piece has the epochs of all rounds."""
        training = {**self.training, "seed": seed}
        if row.setting == "rounds" and row.sites == 1:
            training |= self.whole
        if row.setting == "once":
            training |= {"epochs": training["epochs"] * self.rounds, "schedule": {"name": "constant"}, **self.once}
        plain = {"federation": "results", "state": "state", "model": dict(self.model), "training": training}
        if row.setting == "rounds" and row.sites > 1:
            plain["strategy"] = dict(self.strategy)
        return convert(plain, CoordinatorConfig, "the recipe")


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """The whole comparison."""

    recipes: Mapping[str, Recipe]
    rows: tuple[Row, ...]
    folds: int


def full(weights: str) -> Grid:
    """Return the comparison of `docs/results.md`; `weights` are MobileNetV2's: a path, or `imagenet`."""
    recipes = {"simple_cnn": _simple_cnn(64, 24), "mobilenet_v2": _mobilenet_v2(weights, 128, 24)}
    rows = [row for model in recipes for row in _rows(model)]
    return Grid(recipes=recipes, rows=tuple(_repeated(row) for row in rows), folds=5)


def quick() -> Grid:
    """Return a comparison of all kinds of rows that says nothing about the models: random weights, two rounds."""
    recipes = {"simple_cnn": _simple_cnn(48, 2), "mobilenet_v2": _mobilenet_v2(None, 48, 2)}
    shapes: tuple[tuple[Setting, int, Skew, bool], ...] = (
        ("once", 1, "none", True),
        ("alone", 2, "none", True),
        ("rounds", 1, "none", True),
        ("rounds", 2, "labels", True),
        ("rounds", 2, "none", False),
    )
    rows = (
        Row(
            model=model,
            setting=setting,
            sites=sites,
            skew=skew,
            keep_twins=keep_twins,
            exports=("float32", "int8") if skew == "labels" else (),
        )
        for model in recipes
        for setting, sites, skew, keep_twins in shapes
    )
    return Grid(recipes=recipes, rows=tuple(rows), folds=2)


def _rows(model: str) -> list[Row]:
    skews: tuple[Skew, ...] = ("none", "labels")
    return [
        Row(model=model, setting="once", sites=1),
        Row(model=model, setting="rounds", sites=1),
        Row(model=model, setting="alone", sites=5),
        *(
            Row(
                model=model,
                setting="rounds",
                sites=sites,
                skew=skew,
                exports=get_args(Variant) if (sites, skew) == (5, "none") else (),
            )
            for sites in (2, 5, 10)
            for skew in skews
        ),
        Row(model=model, setting="once", sites=1, keep_twins=False),
        Row(model=model, setting="rounds", sites=2, keep_twins=False),
        Row(model=model, setting="rounds", sites=5, keep_twins=False),
    ]


def _repeated(row: Row) -> Row:
    """Do what claims are read from several times."""
    shape = row.setting, row.sites, row.skew, row.keep_twins
    return msgspec.structs.replace(row, repeats=REPEATS[row.model].get(shape, 1))


def _simple_cnn(image_size: int, rounds: int) -> Recipe:
    slight = {"rotation": 4, "zoom": 0.05, "contrast": 0.05}
    return Recipe(
        model={"name": "simple_cnn", "options": {"image_size": image_size, "augmentation": slight}},
        training={"epochs": 2, "batch_size": 2, "learning_rate": 1e-3, "schedule": _falling(rounds)},
        rounds=rounds,
        once={"batch_size": 8},
        whole={"batch_size": 4},
        strategy={"name": "fedavgm", "momentum": 0.5},
    )


def _mobilenet_v2(weights: str | None, image_size: int, rounds: int) -> Recipe:
    return Recipe(
        model={"name": "mobilenet_v2", "options": {"alpha": 0.35, "image_size": image_size, "weights": weights}},
        training={"epochs": 1, "batch_size": 2, "learning_rate": 5e-4, "schedule": _falling(rounds)},
        rounds=rounds,
        once={"batch_size": 16},
        whole={"batch_size": 4},
        strategy={"name": "fedavgm", "momentum": 0.5},
    )


def _falling(rounds: int) -> dict[str, Any]:
    return {"name": "cosine", "rounds": rounds, "final": 0.05}
