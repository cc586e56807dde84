"""Commands that coordinator and device have alike: they work on files, without a broker.

Imports no more than click at the top, so that `--help` answers at once.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from common.command import INPUT, PATH, console, json_option, listed, option_value, print_json
from common.errors import UsageError, WorkError

if TYPE_CHECKING:
    from common.config import DataConfig
    from common.learning.recipe import Recipe
    from common.learning.seam import FileLearner
    from common.weights import Tensor

Command = TypeVar("Command", bound=Callable[..., Any])


def data_options(command: Command) -> Command:
    """Add the flags that say where images are; `read_data` takes them."""
    for option in (
        click.option("--labels", default="no,yes", show_default=True, help="The two labels, the negative one first."),
        click.option("--unseen", type=INPUT, help="CSV or folder of held-back images [default: what is found]"),
        click.option("--images", type=INPUT, help="Folder that a CSV's names start from [default: the CSV's own]"),
        click.option(
            "--data",
            "source",
            type=INPUT,
            help="A folder of images (one folder a label, train/ and val/, or a split), or a CSV.",
        ),
    ):
        command = option(command)
    return command


def model_options(command: Command) -> Command:
    """Add the flags that say which model; `read_model` takes them."""
    for option in (
        click.option(
            "--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the model: image_size=96."
        ),
        click.option("--model", help="The model's name [default: what a model file says; else simple_cnn]"),
        click.option("--recipe", type=PATH, help="A YAML file with `model` and `training`, or the coordinator's."),
    ):
        command = option(command)
    return command


def read_data(
    source: Path | None, site: str | None, flags: Mapping[str, Any], *, to_measure: bool = False
) -> "DataConfig":
    """Find what the flags of `data_options` name, to train on or only to measure on. Raises ConfigError."""
    from common.learning.layouts import Where, find, find_unseen

    if source is None:
        raise UsageError("--data: not given; name a folder of images or a CSV")
    names = listed(flags["labels"])
    if len(names) != 2:
        raise UsageError(f"--labels: {flags['labels']!r} is not of the form no,yes")
    where = Where(source, site, flags["images"], flags["unseen"], (names[0], names[1]))
    return find_unseen(where) if to_measure else find(where)


def read_model(recipe: Path | None, model: str | None, options: tuple[str, ...], training: dict[str, Any]) -> "Recipe":
    """Read the recipe, with what the flags say over it. Raises ConfigError."""
    from common.learning.recipe import read_recipe

    given = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise UsageError(f"--option: {option!r} is not of the form image_size=96")
        given[key] = option_value(value, f"--option {key}")
    return read_recipe(recipe, model, given, {key: value for key, value in training.items() if value is not None})


def read_files(
    paths: Sequence[Path], *, recipe: Path | None, model: str | None, options: tuple[str, ...], **_others: Any
) -> "tuple[FileLearner, list[list[Tensor]]]":
    """Build the network that model files are of, and read their weights; the flags of `model_options` add to that.

    Raises as `judging.read_models` does.
    """
    from common.learning.judging import read_models
    from common.learning.recipe import names_model

    is_named = model is not None or names_model(recipe)
    return read_models(paths, read_model(recipe, model, options, {}), is_named=is_named)


@click.command()
@click.option("--site", help="Whose part of a split.")
@data_options
@model_options
@click.option(
    "--init", multiple=True, type=INPUT, help="Weights to begin with, by layer; a later file beats an earlier."
)
@click.option("--epochs", type=click.IntRange(0, 10_000), help="Passes over the images [default: the recipe's, or 10]")
@click.option("--batch-size", type=click.IntRange(1, 65_536), help="Images a step.")
@click.option("--learning-rate", type=click.FloatRange(0, 100, min_open=True), help="Of Adam.")
@click.option("--seed", type=click.IntRange(0, 2**31), help="Of the first weights, the order and the augmentation.")
@click.option("--out", type=PATH, required=True, help="File to write: .weights.h5, .h5, .keras or .npz.")
@click.option("--tensorboard", type=PATH, help="Folder for event files.")
@click.option("--plot/--no-plot", "is_drawn", default=True, help="Draw NAME_training_history.png beside the file.")
@json_option
def train(site: str | None, source: Path | None, out: Path, as_json: bool, **flags: Any) -> None:
    """Train a model on one site's images, without a federation, and write it to a file."""
    from common.learning import offline
    from common.learning.reporting import show_training

    training = {key: flags[key] for key in ("epochs", "batch_size", "learning_rate", "seed")}
    messages = console(stderr=True)
    order = offline.Order(
        recipe=read_model(flags["recipe"], flags["model"], flags["options"], training),
        data=read_data(source, site, flags),
        out=out,
        init=flags["init"],
        events=flags["tensorboard"],
        is_drawn=flags["is_drawn"],
        tell=messages.print,
    )
    report = offline.train(order)
    if as_json:
        print_json(report)
    else:
        show_training(report, console())


@click.command()
@click.argument("after", metavar="MODEL", type=INPUT)
@click.option("--before", type=INPUT, help="A model to compare with, such as the one before the rounds.")
@click.option("--site", "sites", multiple=True, help="Whose held-back part of a split; give it for each site.")
@data_options
@model_options
@click.option("--plots", type=PATH, help="Folder for roc.png and precision_recall.png.")
@json_option
def evaluate(after: Path, before: Path | None, as_json: bool, **flags: Any) -> None:
    """Measure a model file on images that it never saw, site by site, with intervals of 95 %.

    The file says which network it is of; a flag that contradicts it is refused.
    """
    learner, weights = read_files([before, after] if before else [after], **flags)
    names = ["before", "after"] if before else [after.name]
    show_comparison(learner, dict(zip(names, weights, strict=True)), as_json=as_json, **flags)


def show_comparison(learner: Any, models: dict[str, Any], *, as_json: bool, plots: Path | None, **flags: Any) -> None:
    """Measure `models` on what the flags of `data_options` and `sites` name, and print it. Raises FedpiError."""
    from common.learning import comparison, reporting
    from common.learning.images import load_unseen

    out, examples = console(stderr=as_json), {}
    for site in flags["sites"] or (None,):
        data = read_data(flags["source"], site, flags, to_measure=True)
        loaded = load_unseen(data, learner.image_size)
        name = site or Path(flags["source"]).name
        examples[name] = loaded.unseen
        reporting.show_measured(name, data, loaded, out)
    found = comparison.compare(learner, models, examples)
    paths = comparison.draw(found, plots) if plots else []
    if as_json:
        print_json(found.rows)
    else:
        reporting.show_comparison(found, paths, console())


@click.command()
@click.argument("weights", metavar="MODEL", type=INPUT)
@click.option("--site", help="Whose part of a split.")
@data_options
@model_options
@click.option("--variant", "variants", multiple=True, help="float32, float16, dynamic or int8 [default: all four]")
@click.option("--out", type=PATH, required=True, help="Folder for model_VARIANT.tflite.")
@json_option
def export(weights: Path, site: str | None, source: Path | None, out: Path, as_json: bool, **flags: Any) -> None:
    """Convert a model file to TFLite, and measure every variant on this machine.

    The file says which network it is of; a flag that contradicts it is refused.
    int8 is calibrated on the images to train on; agreement and accuracy are measured on the held-back ones.
    """
    from common.learning import reporting, variants
    from common.learning.seam import load

    data = read_data(source, site, flags)
    learner, (read,) = read_files([weights], **flags)
    loaded = load(data, learner.image_size)
    reporting.show_skipped(loaded.skipped, console(stderr=True))
    wanted = variants.choose(flags["variants"])
    found = variants.export(learner, read, loaded, out, wanted)
    if as_json:
        print_json(found)
    else:
        reporting.show_variants(found, console())
    if not any(variant.file for variant in found.variants):
        raise WorkError(f"{out}: no file was written: {found.variants[0].reason}")
