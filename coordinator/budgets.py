"""How much a device may send and ask for: an allowance that is used up, and grows again with time. Pure.

Honest devices stay far below. What exceeds a budget is dropped before it costs more than its reading. Only what a
device said itself, as far as its signature or the broker's access rules tell, is taken out of its budgets, and the ends
say again what was not heard, so a device that is merely unlucky goes on, slower. Times are monotonic seconds.
"""

from dataclasses import dataclass

from common.chunks import lowest
from common.errors import PeerError

NAMED_EVERY_S = 60.0
"""How often a device that exceeds a budget is named."""
WANTED_STREAMS = 4
"""How often a device may ask for every chunk of a blob at once; then again as often as WANTED_STREAM_S passes."""
WANTED_STREAM_S = 60.0
WANTED_LEAST = 16
"""Chunks that count as a whole blob at least, so that a small one may be asked for again on a bad line."""
TIDIED_EVERY_S = 60.0
"""How often allowances that are whole again are dropped."""


@dataclass(frozen=True)
class Budget:
    """So many at once, and so many more each second."""

    of: str
    most: float
    a_second: float


MESSAGES = Budget("messages", 1000.0, 100.0)
"""What is valid, on `say` and `status`."""
OFFERS = Budget("offers", 40.0, 1.0)
WANTED = "chunks wanted"


@dataclass(frozen=True)
class _Allowance:
    """What was left of a budget at a time."""

    budget: Budget
    left: float
    at: float

    def by(self, now: float) -> float:
        return min(self.left + (now - self.at) * self.budget.a_second, self.budget.most)


class OverBudgetError(PeerError):
    """A device sends or asks for more than its budget allows."""


class Budgets:
    """The budgets of all devices, and who exceeded one."""

    def __init__(self) -> None:
        self._allowances: dict[tuple[str, str], _Allowance] = {}
        self._dropped: dict[tuple[str, str], int] = {}
        """Messages beyond a budget since its device was last named, by device and what the budget is of."""
        self._named_at: dict[tuple[str, str], float] = {}
        """When a device may be named again."""
        self._tidy_at = 0.0

    def spend(self, device: str, budget: Budget, now: float) -> None:
        """Take one message out of a device's budget; raises OverBudgetError where nothing is left."""
        if not self._take((device, budget.of), budget, 1, now):
            self._note(device, budget.of)
            raise OverBudgetError(f"{device} exceeds its budget of {budget.of}")

    def grant(self, device: str, blob: str, total: int, bits: int, now: float) -> int:
        """Return the chunks of `bits`, a bitmap over a blob of `total` chunks, that a device may have: the lowest."""
        size, wanted = max(total, WANTED_LEAST), bits.bit_count()
        budget = Budget(WANTED, float(WANTED_STREAMS * size), size / WANTED_STREAM_S)
        if (taken := self._take((device, blob), budget, wanted, now)) < wanted:
            self._note(device, WANTED)
        return lowest(bits, taken)

    def to_name(self, now: float) -> list[str]:
        """Return a sentence for each device that exceeded a budget, for each at most once in NAMED_EVERY_S."""
        due = [key for key in self._dropped if now >= self._named_at.get(key, now)]
        self._named_at |= dict.fromkeys(due, now + NAMED_EVERY_S)
        return [f"device={key[0]} exceeds its budget of {key[1]}: {self._dropped.pop(key)} dropped" for key in due]

    def _take(self, key: tuple[str, str], budget: Budget, wanted: int, now: float) -> int:
        """Take at most `wanted` out of an allowance; returns how many."""
        known = self._allowances.get(key)
        left = budget.most if known is None else known.by(now)
        taken = min(wanted, int(left))
        if now >= self._tidy_at:
            self._tidy(now)
        self._allowances[key] = _Allowance(budget, left - taken, now)
        return taken

    def _tidy(self, now: float) -> None:
        self._tidy_at = now + TIDIED_EVERY_S
        self._allowances = {key: held for key, held in self._allowances.items() if held.by(now) < held.budget.most}
        self._named_at = {key: at for key, at in self._named_at.items() if at > now or key in self._dropped}

    def _note(self, device: str, of: str) -> None:
        self._dropped[device, of] = self._dropped.get((device, of), 0) + 1
