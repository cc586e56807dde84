"""A Keras model's weights in files: written by Keras, read by the names of layers."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.errors import ConfigError, WorkError
from common.learning import weight_files
from common.learning.weight_files import STATISTICS, SUFFIXES
from common.weights import Tensor


def names(model: Any) -> list[str]:
    """Name the tensors of `model.weights`, in their order, as `weight_files` does."""
    found = {id(variable): name for name, variable in _named(model, "")}
    return [found[id(variable)] for variable in model.weights]


def lay_over(model: Any, weights: Sequence[Tensor], path: Path) -> tuple[list[Tensor], int]:
    """Put the tensors of `path` over those of `weights` with the same layer and shape; also returns their number.

    Raises DataError where the file is damaged, ConfigError where its name says no kind of weight file.
    """
    found = weight_files.read(path)
    own = dict(zip(names(model), weights, strict=True))
    partners = weight_files.match(own, found)
    laid, count = [], 0
    for name, tensor in own.items():
        other = found[partners[name]] if name in partners else None
        is_fit = other is not None and other.shape == tensor.shape
        laid.append(other.astype(tensor.dtype) if other is not None and is_fit else tensor)
        count += is_fit
    return laid, count


def save(model: Any, path: Path) -> None:
    """Write the kind of file that the name of `path` ends in. Raises ConfigError for another, WorkError."""
    suffix = next((known for known in SUFFIXES if path.name.endswith(known)), None)
    if suffix is None:
        raise ConfigError(f"{path}: the name of a weight file must end in {', '.join(SUFFIXES)}")
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


def _named(model: Any, above: str) -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _named(layer, f"{above}{layer.name}/")
        else:
            for place, variable in enumerate(layer.weights):
                name = variable.name if variable.name in STATISTICS else str(place)
                yield f"{above}{layer.name}/{name}", variable
