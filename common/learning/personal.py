"""Which tensors stay on the device: the plan's personal layers, and BatchNorm's under FedBN. Pure."""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from common.plan import Training
from common.weights import Spec, Tensor

_STATISTIC = "/moving_mean"


def places(spec: Spec, training: Training) -> frozenset[int]:
    """Places in `spec` of the tensors that stay on the device.

    They match a pattern of `training.personal`, with or without the number that begins a Keras tensor's
    name; or they belong to a layer with a moving mean and `training.batch_norm` is `local` (FedBN: Li et
    al. 2021, "FedBN: federated learning on non-IID features via local batch normalization").
    """
    norms = {layer_of(t.name) for t in spec if t.name.endswith(_STATISTIC)} if training.batch_norm == "local" else set()
    return frozenset(
        place
        for place, tensor in enumerate(spec)
        if layer_of(tensor.name) in norms or any(_matches(tensor.name, pattern) for pattern in training.personal)
    )


def layer_of(name: str) -> str:
    """Name of the layer of a tensor, without its place."""
    return bare(name).rpartition("/")[0]


def bare(name: str) -> str:
    """Name of a tensor without the number of its place, which other layers before it would change."""
    return re.sub(r"^\d{3,}/", "", name)


def overlay(spec: Spec, weights: Sequence[Tensor], over: dict[str, Tensor]) -> list[Tensor]:
    """Put tensors by name over `weights`, where they have the same shape and dtype."""
    return [
        found
        if (found := over.get(tensor.name)) is not None and (found.shape, found.dtype) == (value.shape, value.dtype)
        else value
        for tensor, value in zip(spec, weights, strict=True)
    ]


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(bare(name), pattern)
