"""What a row of the table of faults is.

To add one: write a function `(arena, rng) -> Outcome` in a module `rows_*.py`, describe it by a `Row` in that
module's `ROWS`, and list the module in `table.py`. The function injects its fault once, into a round of its own
(`trial = arena.open()`), at a point that `rng` chooses (`arena.proxy.watch(...)` waits for a message, `arena.until`
for anything else), makes good what it broke, waits for `trial.finish()` and looks after what its row promises beside
that. What does not hold it raises as `NotSurvivedError`.

Whoever runs it has an arena in order before, and checks afterwards: everybody is alive and connected, every device
holds the new model, and no log has a traceback or a warning that is neither usual nor in `expects`. The same seed
draws the same numbers; a row that walks through a list of places takes `arena.seed` modulo its length.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tests.faults.arena import Arena, Setup

USUAL_SETUP = Setup()


@dataclass(frozen=True)
class Outcome:
    """What one injection showed.

    `recovery_s`: from the end of the fault (the reset, the lift, the restart) until the round closed; 0 if it closed
    before. `resent_bytes`: chunks that somebody handed to the broker again, None where nobody counts.
    """

    recovery_s: float
    resent_bytes: int | None = None
    note: str = ""


Inject: TypeAlias = Callable[[Arena, random.Random], Outcome]


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    number: int
    fault: str
    how: str
    """How it is injected."""
    holds: str
    """What must hold."""
    inject: Inject
    setup: Setup = USUAL_SETUP
    expects: tuple[str, ...] = ()
    """Regular expressions of warnings that this fault may bring into the logs."""
    injections: int | None = None
    """How many make the full table, where that is not the number that was asked for."""
    short_seeds: tuple[int, ...] = (0,)
    """What the short version injects."""
    is_waiting: bool = False
    """Whether it mostly waits, so that it may run beside others."""
    needs_root: bool = False
    """Whether only root can inject it."""
