"""The network that a model file is of: what the file says decides, and a flag that contradicts it is refused."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from common.errors import DataError, UsageError
from common.learning import weight_files
from common.learning.networks import recognise
from common.learning.offline import file_learner
from common.learning.outline import difference, size_of
from common.learning.recipe import Recipe
from common.learning.seam import BUILT_IN_MODELS, Describing, FileLearner
from common.learning.weight_files import WeightFile
from common.plan import ModelChoice
from common.weights import Tensor

SAYS = "the command line or the recipe says"


def read_models(paths: Sequence[Path], recipe: Recipe, *, is_named: bool) -> tuple[FileLearner, list[list[Tensor]]]:
    """Build the network that the files are of, and read their weights. `is_named` says whether a model was named.

    Raises DataError for a file that is of another network than the others, than any built-in model or than the named
    one; UsageError where the recipe contradicts a file; ConfigError.
    """
    choices = [_choice(path, weight_files.load(path), recipe, is_named=is_named) for path in paths]
    for path, choice in zip(paths, choices, strict=True):
        if choice != choices[0]:
            raise DataError(
                f"{path}: it is of {_words(choice)}, and {paths[0]} of {_words(choices[0])}: not comparable"
            )
    learner = file_learner(msgspec.structs.replace(recipe, model=choices[0]))
    weights = [learner.read(path) for path in paths]
    for path in paths:
        _check(path, weight_files.load(path), learner, choices[0].name)
    return learner, weights


def _choice(path: Path, file: WeightFile, recipe: Recipe, *, is_named: bool) -> ModelChoice:
    """Return the model of a file with its options, the recipe's where the file leaves them open."""
    said = recipe.model
    if is_named and said.name not in BUILT_IN_MODELS:
        return said
    found = recognise(file)
    if found is None and is_named:
        return said
    if found is None:
        raise DataError(
            f"{path}: its network is no built-in model; name your own by --recipe, whose key 'models' lists it"
        )
    if is_named and said.name != found.name:
        raise UsageError(
            f"{path}: its network is {found.name}, and {SAYS} {said.name}; leave out the name, or correct it"
        )
    options = dict(said.options)
    for key, values in found.options.items():
        if options.setdefault(key, values[0]) not in values:
            known = " to ".join(map(str, dict.fromkeys((values[0], values[-1])))) if key == "image_size" else values[0]
            raise UsageError(f"{path}: its network has {key} {known}, and {SAYS} {options[key]}; correct that")
    if "image_size" not in options and not is_named:
        raise UsageError(
            f"{path}: it is of {found.name}, and does not say of which image size; add --option image_size=N"
        )
    return ModelChoice(found.name, options)


def _check(path: Path, file: WeightFile, learner: FileLearner, name: str) -> None:
    """See that the layers which a file describes compute what the model's own do."""
    if file.network is None:
        return
    if (size := size_of(file.network)) is not None and size != learner.image_size:
        raise UsageError(f"{path}: its network takes images of {size} px, and model {name!r} {learner.image_size} px")
    own = learner.outline() if isinstance(learner, Describing) else None
    if own is not None and (reason := difference(own, file.network)) is not None:
        raise DataError(f"{path}: its network is not that of model {name!r}: {reason}")


def _words(choice: ModelChoice) -> str:
    told = ", ".join(f"{key} {choice.options[key]}" for key in ("image_size", "alpha") if key in choice.options)
    return f"{choice.name} ({told})" if told else choice.name
