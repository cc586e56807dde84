"""A Keras model's weights in files: written by Keras, read as data and laid in by the names of layers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.errors import DataError, WorkError
from common.learning import weight_files
from common.learning.matching import Pairs, has_twins, match_all, shapes_of
from common.learning.tensor_names import STATISTICS, count_places
from common.learning.weight_files import BY_PLACE, WeightFile, suffix_of
from common.weights import Tensor


def names(model: Any) -> list[str]:
    """Name the tensors of `model.weights`, in their order, as `weight_files` does."""
    found = {id(variable): name for name, _, variable in _named(model)}
    return [found[id(variable)] for variable in model.weights]


def read(model: Any, path: Path, *, is_whole: bool = True) -> list[Tensor]:
    """Read the weights of `model` from a file that holds these and, where `is_whole`, no others. Raises DataError."""
    file = weight_files.load(path)
    own = dict(zip(names(model), model.weights, strict=True))
    partners = _partners(model, file, path)
    if missing := [name for name in own if name not in partners]:
        raise DataError(f"{path}: holds no weights of this model: it has no tensor {_first(missing)} of the model's")
    if is_whole and (surplus := sorted(file.tensors.keys() - set(partners.values()))):
        raise DataError(
            f"{path}: holds no weights of this model: the model has no tensor {_first(surplus)} of the file's"
        )
    for name, partner in partners.items():
        if (found := file.tensors[partner].shape) != (wanted := tuple(own[name].shape)):
            raise DataError(
                f"{path}: holds no weights of this model: tensor {partner!r} has shape {list(found)}"
                f" where the model has {list(wanted)}"
            )
    return [file.tensors[partners[name]].astype(variable.dtype, copy=False) for name, variable in own.items()]


def lay_over(model: Any, weights: Sequence[Tensor], path: Path) -> tuple[list[Tensor], int]:
    """Put the tensors of `path` over those of `weights` with the same layer and shape; also returns their number.

    Raises DataError where the file is damaged, or does not say which layer is which.
    """
    file = weight_files.load(path)
    partners = _partners(model, file, path)
    laid, count = [], 0
    for name, tensor in zip(names(model), weights, strict=True):
        other = file.tensors[partners[name]] if name in partners else None
        is_fit = other is not None and other.shape == tensor.shape
        laid.append(other.astype(tensor.dtype) if other is not None and is_fit else tensor)
        count += is_fit
    return laid, count


def save(model: Any, path: Path) -> None:
    """Write the kind of file that the name of `path` ends in. Raises ConfigError for another, WorkError."""
    suffix = suffix_of(path)
    draft = path.with_name(f".draft-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".npz":
            values = [variable.value.numpy() for variable in model.weights]
            weight_files.write(path, dict(zip(names(model), values, strict=True)), path)
            return
        (model.save_weights if suffix == ".weights.h5" else model.save)(draft)
        draft.replace(path)
    except OSError as error:
        raise WorkError(f"{path}: cannot write the model: {error.strerror or error}") from error


def _partners(model: Any, file: WeightFile, path: Path) -> Pairs:
    """Return which tensor of the file stands for which one of the model."""
    own = {name: tuple(variable.shape) for name, _, variable in _named(model)}
    found = shapes_of(file.tensors)
    if file.is_by_place and found == {place: tuple(variable.shape) for _, place, variable in _named(model)}:
        return {name: place for name, place, _ in _named(model)}
    if file.is_by_place and (has_twins(own) or has_twins(found)):
        raise DataError(
            f"{path}: it {BY_PLACE}, and has other ones than the model, so that nothing says which is which;"
            " save the whole model instead, as .keras"
        )
    return match_all(own, found)


def _first(names: Sequence[str]) -> str:
    return repr(names[0]) + (f" (and {len(names) - 1} more)" if len(names) > 1 else "")


def _named(model: Any, above: str = "", place_above: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield each variable with its name by layers, and by the layers' classes and places."""
    places = count_places(type(layer).__name__ for layer in model.layers)
    for layer, place in zip(model.layers, places, strict=True):
        if hasattr(layer, "layers"):
            yield from _named(layer, f"{above}{layer.name}/", f"{place_above}{place}/")
            continue
        for number, variable in enumerate(layer.weights):
            name = variable.name if variable.name in STATISTICS else str(number)
            yield f"{above}{layer.name}/{name}", f"{place_above}{place}/{name}", variable
