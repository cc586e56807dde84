"""Which tensor of a file stands for which one of a model: decided by names, never guessed among equal shapes."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by name: `block/dense_1/0`."""
Pairs: TypeAlias = dict[str, str]
Renamed: TypeAlias = Mapping[str, str]
"""New names by old ones."""


def shapes_of(tensors: Mapping[str, object]) -> Shapes:
    """Return the shapes of arrays, or of a spec's tensors, by name."""
    return {name: tuple(getattr(tensor, "shape", ())) for name, tensor in tensors.items()}


def has_twins(shapes: Shapes) -> bool:
    """Whether two layers have the same shapes, so that shapes do not tell them apart."""
    return any(len(layers) > 1 for layers in _by_shapes(shapes).values())


def match(expected: Shapes, found: Shapes) -> Pairs:
    """Return which name of `found` stands for which one of `expected`; a name that has no partner is left out.

    Names are equal; or become so once the numbers that Keras counts up within a process begin at 0: a model that
    was built second has layers `dense_2` and `dense_3` where the first has `dense` and `dense_1`; or do so without
    the models that layers lie within, where no name then stands twice.
    """
    if expected.keys() <= found.keys():
        return {name: name for name in expected}
    for plain in (_as_they_are, _without_models):
        own, other = plain(expected), plain(found)
        pairs = _pair(expected, own, found, other)
        if len(pairs) < len(expected) and _has_as_many(own.values(), other.values()):
            pairs = _pair(expected, _renumbered(own), found, _renumbered(other))
        if len(pairs) == len(expected):
            return pairs
    exact = {name: name for name in expected if name in found}
    return _pair(expected, _without_models(expected), found, _without_models(found)) | exact


def match_all(expected: Shapes, found: Shapes) -> Pairs:
    """As `match`; where some names differ, layers are told by their shapes if these leave no choice.

    That is so where every tensor on both sides then has its partner, and no two layers that are left are alike.
    """
    pairs = match(expected, found)
    used = set(pairs.values())
    wanted = _by_shapes({name: shape for name, shape in expected.items() if name not in pairs})
    left = _by_shapes({name: shape for name, shape in found.items() if name not in used})
    if wanted.keys() != left.keys() or any(len(layers) > 1 for layers in (*wanted.values(), *left.values())):
        return pairs
    for shapes, (layer,) in wanted.items():
        pairs |= {f"{layer}{variable}": f"{left[shapes][0]}{variable}" for variable, _ in shapes}
    return pairs


def _pair(expected: Shapes, own: Renamed, found: Shapes, other: Renamed) -> Pairs:
    """Pair the names that are equal once renamed, if the shapes are."""
    there = _inverse(other)
    pairs = {old: there[new] for new, old in _inverse(own).items() if new in there}
    return {name: partner for name, partner in pairs.items() if expected[name] == found[partner]}


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    """Return old names by new ones, without those that came to stand for two."""
    inverse: dict[str, str] = {}
    twice = set()
    for old, new in names.items():
        if new in inverse:
            twice.add(new)
        inverse[new] = old
    return {new: old for new, old in inverse.items() if new not in twice}


def _as_they_are(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


def _without_models(names: Iterable[str]) -> dict[str, str]:
    return {name: "/".join(name.split("/")[-2:]) for name in names}


def _renumbered(names: Renamed) -> dict[str, str]:
    """Let the numbers of layers begin at 0 among the layers of one kind below the same layer."""
    least: dict[tuple[str, str], int] = {}
    for name in names.values():
        for above, kind, number in _levels(name):
            least[above, kind] = min(least.get((above, kind), number), number)
    return {
        old: "/".join(
            [f"{kind}_{number - least[above, kind]}" for above, kind, number in _levels(name)]
            + [name.rpartition("/")[2]]
        )
        for old, name in names.items()
    }


def _has_as_many(own: Iterable[str], other: Iterable[str]) -> bool:
    """Whether both have equally many layers of each kind that both have: else a number says nothing."""
    one, two = _numbers(own), _numbers(other)
    return all(len(one[kind]) == len(two[kind]) for kind in one.keys() & two.keys())


def _numbers(names: Iterable[str]) -> dict[tuple[int, str], set[tuple[str, int]]]:
    numbers: dict[tuple[int, str], set[tuple[str, int]]] = {}
    for name in names:
        for above, kind, number in _levels(name):
            numbers.setdefault((above.count("/"), kind), set()).add((above, number))
    return numbers


def _levels(name: str) -> Iterator[tuple[str, str, int]]:
    """Yield each layer in a tensor's name: what stands above it, its kind, its number."""
    above = ""
    for level in name.split("/")[:-1]:
        found = re.fullmatch(r"(.+?)_(\d{1,9})", level)
        yield above, found[1] if found else level, int(found[2]) if found else 0
        above += f"{level}/"


def _by_shapes(names: Shapes) -> dict[tuple[tuple[str, tuple[int, ...]], ...], list[str]]:
    """Return the layers by the shapes of their tensors."""
    layers: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for name, shape in names.items():
        layer, slash, variable = name.rpartition("/")
        layers.setdefault(layer, []).append((slash + variable, shape))
    alike: dict[tuple[tuple[str, tuple[int, ...]], ...], list[str]] = {}
    for layer, shapes in layers.items():
        alike.setdefault(tuple(sorted(shapes)), []).append(layer)
    return alike
