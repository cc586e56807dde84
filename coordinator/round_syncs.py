"""How often rounds wait for the disk: each committed round's line in the log. Every sync of the process counts."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from common.syncs import TALLY
from coordinator.round_state import Phase, Round

log = logging.getLogger(__name__)

LINE = "round=%d syncs=%d syncs_in_series=%d"
"""`syncs`: since the round before was committed. `syncs_in_series`: of the commit, from the last update on."""


class RoundSyncs:
    """Counts from one commit to the next, beside the journal that is written."""

    def __init__(self) -> None:
        self._last = TALLY.made
        self._commit: tuple[int, int] | None = None
        """Number of the round whose last update is here, and the waits before."""

    @contextmanager
    def of_saving(self, round_: Round) -> Iterator[None]:
        """Look at the count around every write of a round to the journal."""
        before = TALLY.made
        yield
        if round_.phase is Phase.AGGREGATING and (self._commit is None or self._commit[0] != round_.number):
            self._commit = round_.number, before.waits
        if round_.phase is Phase.COMMITTED:
            began = self._commit[1] if self._commit and self._commit[0] == round_.number else self._last.waits
            made = TALLY.made
            log.info(LINE, round_.number, made.calls - self._last.calls, made.waits - began)
            self._last = made
