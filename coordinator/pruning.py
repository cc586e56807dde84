"""Old rounds taken out of the journal, which becomes smaller by that."""

import msgspec

from common.errors import DiskFullError
from coordinator.outcome import read_best
from coordinator.store import Store

BATCH = 200
"""Rounds a transaction: a coordinator that runs waits no longer than for these."""


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the journal: rounds taken out and left, and the file's size in bytes before and after."""

    deleted: int
    left: int
    bytes_before: int
    bytes_after: int
    is_shrunk: bool
    """False where the disk had no room to write the file anew: it is as large, with room inside for new rounds."""


def prune(store: Store, keep: int) -> Pruned:
    """Delete all rounds, and what became of devices in them, but the `keep` newest and those that something needs.

    Needed are an open round, rounds of a run that is not over, the rounds that made the global model and the best
    model, and those of releases. Models, releases and devices stay as they are. Raises WorkError.
    """
    before, first = store.file_bytes(), store.count_rounds()
    best = read_best(store.fact("best"))
    needed = {store.last_committed(), *store.released_rounds()}
    if best is not None:
        needed |= {best.round, store.last_committed(before=best.round)}
    while store.delete_rounds(keep, needed, BATCH):
        pass
    is_shrunk = True
    try:
        store.shrink()
    except DiskFullError:
        is_shrunk = False
    left = store.count_rounds()
    return Pruned(
        deleted=first - left, left=left, bytes_before=before, bytes_after=store.file_bytes(), is_shrunk=is_shrunk
    )
