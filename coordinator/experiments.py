"""Commands that look at what was learnt: `evaluate` on files or the live global model, `plot` the ledger."""

from pathlib import Path
from typing import Any

import click

from common.command import INPUT, PATH, config_option_of, console, json_option, print_json, usual_config
from common.errors import ConfigError, UsageError
from common.learning.commands import data_options, model_options, read_files, read_model, show_comparison


@click.command()
@click.argument("after", metavar="[MODEL]", type=INPUT, required=False)
@click.option(
    "--config",
    "config_path",
    type=PATH,
    help="The coordinator's YAML file: measure its live global model. Without MODEL: "
    f"[default: {usual_config('coordinator')}]",
)
@click.option("--before", type=INPUT, help="A model file to compare with, such as the one before the rounds.")
@click.option("--site", "sites", multiple=True, help="Whose held-back part of a split; give it for each site.")
@data_options
@model_options
@click.option("--plots", type=PATH, help="Folder for roc.png and precision_recall.png.")
@json_option
def evaluate(after: Path | None, config_path: Path | None, before: Path | None, as_json: bool, **flags: Any) -> None:
    """Measure a model file, or the live global model, on images that it never saw.

    Site by site, with intervals of 95 %. A file says which network it is of; a flag that contradicts it is refused.
    """
    from common.learning.offline import file_learner

    if after is not None and config_path is not None:
        raise UsageError("name a model file or --config, one of the two")
    if after is None and config_path is None:
        config_path = usual_config("coordinator")
    named = {"before": before} if before else {}
    if after is not None:
        named["after" if before else after.name] = after
    if config_path is not None:
        flags["recipe"] = config_path
    if named:
        learner, read = read_files(list(named.values()), **flags)
    else:
        learner, read = file_learner(read_model(config_path, flags["model"], flags["options"], {})), []
    models = dict(zip(named, read, strict=True))
    if config_path is not None:
        name, weights = _read_live(config_path, learner)
        flags["source"] = flags["source"] or _held_back(config_path)
        models[name] = weights
    show_comparison(learner, models, as_json=as_json, **flags)


def _read_live(config_path: Path, learner: Any) -> tuple[str, list[Any]]:
    from common.blobs import BlobStore
    from coordinator import exporting
    from coordinator.config import read_config
    from coordinator.opening import open_journal

    config = read_config(config_path)
    model = exporting.read_global(open_journal(config), BlobStore(config.global_models), learner)
    return (f"round {model.round}" if model.round else "initial"), model.weights


def _held_back(config_path: Path) -> Path:
    from coordinator.config import read_config

    unseen = read_config(config_path).data.unseen
    if unseen is None:
        raise ConfigError("the configuration names no data.unseen; name held-back images by --data")
    return Path(unseen)


@click.command()
@config_option_of("coordinator")
@click.option("--out", type=PATH, required=True, help="Folder to write into.")
@json_option
def plot(config_path: Path, out: Path, as_json: bool) -> None:
    """Draw the rounds: DEVICE_training_history.png for every device, and event files for TensorBoard."""
    from coordinator.config import read_config
    from coordinator.opening import open_journal
    from coordinator.plotting import draw

    paths = draw(open_journal(read_config(config_path)), out)
    if as_json:
        print_json([str(path) for path in paths])
        return
    for path in paths:
        console().print(str(path))
    console().print(f"TensorBoard: tensorboard --logdir {out / 'events'}")
