"""The names of a file's tensors: `dense_1/0` is the kernel and `dense_1/1` the bias of layer `dense_1`.

The running statistics of BatchNorm keep their names. Keras 2.13 to 3.5 write `.keras` and `.weights.h5` without
the names of layers: a layer is named there by its class and its place among the layers of that class. In a
`.keras` file the list of layers beside the weights says which layer that is; a `.weights.h5` does not say it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from common.errors import DataError
from common.learning.outline import Layer

STATISTICS = ("moving_mean", "moving_variance")
COUNTED_TWICE = "_layer_checkpoint_dependencies"
"""Group that holds the layers of a model until Keras 2.14, which counts a layer twice that has weights."""
CONTAINERS = frozenset({"layers", COUNTED_TWICE})

Groups = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class Names:
    """The path in the file of every tensor by its name, in the file's order."""

    paths: dict[str, str]
    is_by_place: bool
    """Whether the names are those of classes and places, and not of layers."""


def name_tensors(groups: Groups, paths: Sequence[str], network: Layer | None) -> Names:
    """Name the tensors of an HDF5 file by its groups' attributes. Raises DataError where these contradict the file."""
    root = "model_weights" if "model_weights" in groups else ""
    if layers := _texts(groups[root], "layer_names"):
        return Names(_of_keras_2(groups, frozenset(paths), root, layers), is_by_place=False)
    return _of_keras_3(groups, paths, network)


def count_places(classes: Iterable[str]) -> list[str]:
    """Name layers of these classes as Keras 3 does in files: `conv2d`, `conv2d_1`, each class by itself."""
    used: dict[str, int] = {}
    places = []
    for name in classes:
        key = re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name)))
        key = key.lower()
        used[key] = used.get(key, -1) + 1
        places.append(f"{key}_{used[key]}" if used[key] else key)
    return places


def _of_keras_2(groups: Groups, there: frozenset[str], root: str, layers: Sequence[str]) -> dict[str, str]:
    """Follow the layers and weights that the attributes `layer_names` and `weight_names` list."""
    found = {}
    for layer in layers:
        top = f"{root}/{layer}".lstrip("/")
        places: dict[tuple[str, ...], int] = {}
        for weight in _texts(groups.get(top, {}), "weight_names"):
            if f"{top}/{weight}" not in there:
                raise DataError(f"it lists a tensor {f'{top}/{weight}'!r} and has none of that name")
            *levels, variable = weight.partition(":")[0].split("/")
            below = tuple(levels[levels.index(layer) + 1 :] if layer in levels else levels)
            place = places.get(below, 0)
            places[below] = place + 1
            name = variable if variable in STATISTICS else str(place)
            found["/".join((layer, *below, name))] = f"{top}/{weight}"
    return found


def _of_keras_3(groups: Groups, paths: Sequence[str], network: Layer | None) -> Names:
    """Follow `layers/dense_1/vars/0`; since Keras 3.6 the group `vars` carries the layer's own name as an attribute."""
    below: dict[str, list[str]] = {}
    for path in paths:
        above, _, variable = path.rpartition("/")
        if above.rpartition("/")[2] == "vars":
            below.setdefault(above, []).append(variable)
    found: dict[str, str] = {}
    has_names = True
    places = _places(groups)
    for above, variables in below.items():
        layer, is_named = _layer_names(groups, places, above.split("/")[:-1], network)
        has_names = has_names and is_named
        is_norm = "batch_normalization" in above.split("/")[-2:][0]
        variables.sort(key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
        for place, variable in enumerate(variables):
            left = len(variables) - place
            name = "/".join((*layer, STATISTICS[-left] if is_norm and left <= len(STATISTICS) else variable))
            if name in found:
                raise DataError(f"it has two layers named {'/'.join(layer)!r}")
            found[name] = f"{above}/{variable}"
    return Names(found, is_by_place=not has_names)


def _places(groups: Groups) -> dict[str, str]:
    """Return the place of each layer by its path where layers were counted twice: `dense_2` becomes `dense_1`."""
    alike: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for path in groups:
        above, _, key = path.rpartition("/")
        if above.rpartition("/")[2] == COUNTED_TWICE:
            kind, _, number = key.rpartition("_")
            is_counted = bool(kind) and number.isdecimal()
            place = (int(number), path) if is_counted else (0, path)
            alike.setdefault((above, kind if is_counted else key), []).append(place)
    return {
        path: f"{kind}_{place}" if place else kind
        for (_, kind), found in alike.items()
        for place, (_, path) in enumerate(sorted(found))
    }


def _layer_names(
    groups: Groups, places: Mapping[str, str], levels: Sequence[str], network: Layer | None
) -> tuple[list[str], bool]:
    """Give the names of the layers that lead to a group, and whether they are names rather than places."""
    names, has_names = [], True
    for depth, key in enumerate(levels):
        if key in CONTAINERS:
            continue
        path = "/".join(levels[: depth + 1])
        own, place = groups.get(f"{path}/vars", {}).get("name"), places.get(path, key)
        listed = _listed(network, place)
        network = listed
        if own is None and listed is None:
            has_names = False
        names.append(own[0] if own else listed.name if listed is not None else place)
    return names, has_names


def _listed(model: Layer | None, key: str) -> Layer | None:
    """Find which layer of `model` has this place in the file."""
    if model is None:
        return None
    places = count_places(layer.kind for layer in model.layers)
    return dict(zip(places, model.layers, strict=True)).get(key)


def _texts(attributes: Mapping[str, Sequence[str]], name: str) -> list[str]:
    """Read a list of texts; Keras cuts a long one into attributes that end in 0, 1 and so on."""
    pieces = {int(key.removeprefix(name) or 0): key for key in attributes if re.fullmatch(rf"{name}\d{{0,9}}", key)}
    return [text for _, key in sorted(pieces.items()) for text in attributes[key]]
