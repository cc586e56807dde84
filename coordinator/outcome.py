"""What a committed round leaves behind for later ones, as facts of the journal: model, moments, best model. Pure."""

from collections.abc import Callable

import msgspec

from common.messages import Ref
from coordinator.round_state import Round
from coordinator.story import mean_metrics


class Moments(msgspec.Struct, frozen=True):
    """What a strategy remembers from its last round."""

    strategy: str
    ref: Ref


class Best(msgspec.Struct, frozen=True):
    """The global model with the best validation metric so far; `round` measured it before it trained on."""

    metric: str
    value: float
    round: int
    model: Ref


def facts(round_: Round, known: Callable[[str], str | None]) -> dict[str, str]:
    """Return the facts that change as this round is over; `known` gives a fact as it was. None for a void round."""
    if round_.result is None:
        return {}
    method = round_.method
    moments = None if method.next_moments is None else Moments(method.strategy.title, method.next_moments)
    changed: dict[str, object] = {"global_model": round_.result, "moments": moments}
    if (best := _better(round_, read_best(known("best")))) is not None:
        changed["best"] = best
    return {name: msgspec.json.encode(value).decode() for name, value in changed.items()}


def read_moments(fact: str | None) -> Moments | None:
    """Read the fact `moments`."""
    return None if fact is None else msgspec.json.decode(fact, type=Moments | None)


def read_best(fact: str | None) -> Best | None:
    """Read the fact `best`."""
    return None if fact is None else msgspec.json.decode(fact, type=Best)


def _better(round_: Round, best: Best | None) -> Best | None:
    """Return the round's base where it is better than the best so far: the devices measured it before they trained."""
    metric = round_.method.best_by
    value = mean_metrics(round_).get(metric)
    if value is None:
        return None
    if best is not None and best.metric == metric:
        is_better = value < best.value if metric.endswith("loss") else value > best.value
        if not is_better:
            return None
    return Best(metric, value, round_.number, round_.base)
