"""Rounds and plans for tests that need some, with as little said of them as the test is about."""

from typing import Any

from common import plan as plans
from common.messages import Ref
from common.plan import ModelChoice, RoundPlan
from coordinator.method import Method
from coordinator.options import RoundOptions
from coordinator.round import begin
from coordinator.round_state import Round

GENERATION = "aa"
BASE = Ref(id="0" * 64, head_bytes=100, size=8, chunk_bytes=4096)


def plan_of(number: int = 5, base: Ref = BASE, generation: str = GENERATION, **more: Any) -> RoundPlan:
    """Return a plan of the model `numpy`."""
    return RoundPlan(round=number, generation=generation, base=base, **{"model": ModelChoice(name="numpy"), **more})


def open_round(plan: RoundPlan | None = None, method: Method | None = None, now: float = 0.0, **options: Any) -> Round:
    """Return a round that has just been opened; `options` are those of a round."""
    return begin(plan or plan_of(), RoundOptions(**options), method or Method(), now)[0]


def digest(plan: RoundPlan | None = None) -> str:
    """Return what an offer says of the plan."""
    return plans.digest(plans.write(plan or plan_of()))
