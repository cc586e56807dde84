"""What to train offline: model and training as in the coordinator's configuration, which may be the file itself."""

from pathlib import Path
from typing import Any

import msgspec

from common.config import Config, Folders, convert, load
from common.errors import ConfigError
from common.plan import ModelChoice, Training
from common.python import extend_path

OFFLINE: dict[str, Any] = {"epochs": 10, "learning_rate": 1e-3}
"""Where a training on files differs from one in a round unless it is told otherwise: no further rounds follow it."""


class Recipe(Config, frozen=True):
    """Model, where its factory is if it is one's own, and training."""

    model: ModelChoice = ModelChoice(name="simple_cnn")
    models: dict[str, str] = {}  # noqa: RUF012 - msgspec copies defaults
    python_path: Folders = ()
    training: Training = Training(**OFFLINE)


def read_recipe(path: Path | None, model: str | None, options: dict[str, Any], training: dict[str, Any]) -> Recipe:
    """Read a recipe or the coordinator's configuration; a model's name, options and fields of training beat the file.

    Raises ConfigError for a wrong file or value.
    """
    plain: dict[str, Any] = dict(load(path, dict[str, Any])) if path else {}
    if "federation" in plain:  # the coordinator's own file: what it has besides means something in live rounds only
        plain = _fields(plain, Recipe)
        plain["training"] = _fields(plain.get("training"), Training)
    chosen = {"name": model} if model else plain.get("model", {"name": "simple_cnn"})
    if isinstance(chosen, dict) and options:
        chosen = {**chosen, "options": {**(chosen.get("options") or {}), **options}}
    trained = plain.get("training") or {}
    if isinstance(trained, dict):
        trained = {**OFFLINE, **trained, **training}
    recipe = convert({**plain, "model": chosen, "training": trained}, Recipe, str(path or "the command line"))
    if recipe.training.patience and not recipe.training.validation_share:
        raise ConfigError("training.patience needs images to validate on; set training.validation_share")
    extend_path(recipe.python_path)
    return recipe


def names_model(path: Path | None) -> bool:
    """Whether a recipe or configuration names a model. Raises ConfigError for a wrong file."""
    return path is not None and "model" in load(path, dict[str, Any])


def _fields(plain: Any, schema: type[msgspec.Struct]) -> Any:
    """What of a mapping `schema` knows; anything else as it is, for the sentence about it."""
    known = {field.name for field in msgspec.structs.fields(schema)}
    return {key: value for key, value in plain.items() if key in known} if isinstance(plain, dict) else plain or {}
