"""The devices' learning rate over the rounds. Pure."""

import math
from typing import Annotated, TypeAlias

import msgspec

Rounds = Annotated[int, msgspec.Meta(ge=1, le=100_000)]
WarmUp = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
Factor = Annotated[float, msgspec.Meta(gt=0, le=1)]


class _Schedule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="name"):
    """Options of one schedule; in the configuration `name` says which."""

    warmup_rounds: WarmUp = 0
    """Rounds over which the rate rises evenly from nothing to its full height, which the next round has."""


class Constant(_Schedule, frozen=True, tag="constant"):
    """The same rate in every round."""


class Steps(_Schedule, frozen=True, tag="step"):
    """After every `every` rounds the rate is multiplied by `factor`."""

    every: Rounds
    factor: Factor = 0.5


class Cosine(_Schedule, frozen=True, tag="cosine"):
    """Half a cosine from the full rate, right after the warm-up, to `final` times it in round `rounds`, and on.

    Loshchilov and Hutter, "SGDR" (2017), equation 5, without restarts.
    """

    rounds: Rounds
    final: Factor = 0.01


Schedule: TypeAlias = Constant | Steps | Cosine


def learning_rate(schedule: Schedule, peak: float, number: int) -> float:
    """Return the learning rate of round `number` (from 1), where `peak` is the full one."""
    if number <= schedule.warmup_rounds:
        return peak * number / (schedule.warmup_rounds + 1)
    past = number - schedule.warmup_rounds - 1
    match schedule:
        case Constant():
            return peak
        case Steps(every=every, factor=factor):
            return max(peak * factor ** (past // every), math.ulp(0.0))
        case Cosine(rounds=rounds, final=final):
            length = max(rounds - schedule.warmup_rounds - 1, 1)
            falling = (1 + math.cos(math.pi * min(past / length, 1))) / 2
            return peak * (final + (1 - final) * falling)
