"""What every strategy is: how updates are weighed, combined and applied. By itself it is the weighted mean.

The arithmetic is float64 in the order in which the updates are given, so the same updates give the
same numbers on every machine.
"""

import math
from collections.abc import Iterable
from typing import ClassVar, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.weights import Tensor

Vector: TypeAlias = NDArray[np.float64]
Matrix: TypeAlias = NDArray[np.float64]


class Strategy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="name"):
    """Options of one strategy; in the configuration `name` says which.

    `n` is the number of updates, `v` the number of values in a block of them, `k` that of `fresh_moments`.
    """

    has_distances: ClassVar[bool] = False
    """Whether `weigh` needs the updates' distances from each other."""
    has_stack: ClassVar[bool] = False
    """Whether `combine` holds all updates at once."""

    @property
    def title(self) -> str:
        """Return the strategy's name in the configuration."""
        return str(self.__struct_config__.tag)

    @property
    def fresh_moments(self) -> tuple[float, ...]:
        """What the strategy remembers of each value from round to round, as it is before the first one."""
        return ()

    @property
    def least_updates(self) -> int:
        """Fewest updates with which the strategy is what its name says."""
        return 1

    def weigh(self, examples: Vector, distances: Matrix) -> Vector:
        """Return each update's weight `[n]`, not all of them zero; who has none is left out.

        `examples` `[n]` are the devices' claims; `distances` `[n, n]` squared, empty unless `has_distances`.
        """
        del distances
        return examples

    def combine(self, updates: Iterable[Tensor], weights: Vector, scratch: Matrix) -> Vector:
        """Make one update `[v]` of `n` of them, each `[v]` in the model's own dtype; each weight is above zero.

        `scratch` `[2, v]` is memory to work in, and to return. Unless `has_stack`, an update is gone once the next
        one is asked for.
        """
        return weighted_mean(updates, weights, scratch)

    def advance(self, update: Vector, moments: Matrix) -> tuple[Vector, Matrix]:
        """Return how far the global weights move `[v]`, and the moments `[k, v]` for the next round."""
        return update, moments


def weighted_mean(updates: Iterable[Tensor], weights: Vector, scratch: Matrix) -> Vector:
    """Return sum(weight_i * update_i) / sum(weight_i), summed in the order given, in the first row of `scratch`."""
    total: Vector = scratch[0]
    product: Vector = scratch[1]
    total.fill(0.0)
    for update, weight in zip(updates, weights, strict=True):
        np.copyto(product, update)  # a multiplication that casts would take longer
        product *= weight
        total += product
    total /= math.fsum(weights)
    return total
