"""A round's new global model and its strategy's moments, computed and stored in a thread of its own."""

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from common.blobs import BlobStore
from common.errors import DiskFullError, FedpiError
from common.files import disk_error
from common.link import Broken
from common.messages import Ref
from common.weights import Spec
from coordinator.aggregation import Contribution, aggregate
from coordinator.blocks import Block
from coordinator.events import Aggregated, Cancelled
from coordinator.round_state import Round
from coordinator.strategies.strategy import Strategy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What came of an aggregation, as an event for the round with that number."""

    round: int
    event: Aggregated | Cancelled


def contributions(round_: Round, path: Callable[[str, str], Path]) -> list[Contribution]:
    """Return the updates of a round that count; `path` tells where the update of a device lies."""
    return [
        Contribution(m.device, path(m.device, m.update.id), m.num_examples)
        for m in round_.reported
        if m.update is not None
    ]


class Aggregator:
    """Works on the blobs of `models`; moments lie in `folder`. `put` hears an Outcome, or Broken for a bug."""

    def __init__(self, models: BlobStore, folder: Path, put: Callable[[object], object]) -> None:
        self._models = models
        self._moments = BlobStore(folder)
        self._draft = folder / "moments.tmp"
        self._put = put
        self._thread = ThreadPoolExecutor(1, "aggregate")

    def begin(self, round_: Round, contributions: Sequence[Contribution]) -> None:
        """Aggregate; the same round comes to the same bytes, however often it is asked for."""
        self._thread.submit(self._run, round_, contributions)

    def stop(self) -> None:
        """Wait until nothing is computed any more."""
        self._thread.shutdown()

    def has(self, moments: Ref) -> bool:
        """Whether what the journal tells of is on the disk."""
        return self._moments.has(moments.id)

    def keep(self, moments: Iterable[Ref]) -> None:
        """Delete all other moments."""
        self._moments.keep(ref.id for ref in moments)

    def _run(self, round_: Round, contributions: Sequence[Contribution]) -> None:
        try:
            self._put(Outcome(round_.number, self.aggregate(round_, contributions)))
        except DiskFullError as error:  # the updates are all here: the round waits for room as the coordinator does
            self._put(Broken("aggregator", error))
        except (OSError, FedpiError) as error:
            self._put(Outcome(round_.number, Cancelled(reason=f"averaging failed: {error}")))
        except Exception as error:  # noqa: BLE001 - a bug in this thread must surface in the loop
            self._put(Broken("aggregator", error))

    def aggregate(self, round_: Round, contributions: Sequence[Contribution]) -> Aggregated:
        """Compute and store, durably. Raises DataError for an unusable file, WorkError or OSError for the disk."""
        method, base = round_.method, round_.base
        spec = self._models.head(base).spec or ()
        before = None if method.moments is None else self._moments.body(method.moments.id)
        done = aggregate(self._models.body(base.id), contributions, spec, method.strategy, before)
        log.info("round=%d strategy=%s weights=%s", round_.number, method.strategy.title, done.weights)
        # Also where the disk fails: else the garbage collector would end their threads, at a place where it cannot.
        with contextlib.closing(done.blocks):
            return self._store(base, spec, method.strategy, done.blocks)

    def _store(self, base: Ref, spec: Spec, strategy: Strategy, blocks: Iterable[Block]) -> Aggregated:
        if not strategy.fresh_moments:
            models = (block.model for block in blocks)
            return Aggregated(result=self._models.add_blocks(models, spec, base.chunk_bytes))
        with self._draft.open("wb") as draft:
            parted = _parted(blocks, draft)
            result = self._models.add_blocks(parted, spec, base.chunk_bytes, is_durable=False)
        moments = self._moments.add(self._draft, None, base.chunk_bytes, is_durable=False)
        self._models.sync(result.id, beside=self._moments.files(moments.id))
        return Aggregated(result=result, moments=moments)


def _parted(blocks: Iterable[Block], draft: IO[bytes]) -> Iterator[bytes]:
    """Yield the model's part of each block, and write the moments' part to `draft`."""
    for block in blocks:
        try:
            draft.write(block.moments)
        except OSError as error:
            raise disk_error(f"{draft.name}: cannot write the moments", error) from error
        yield block.model
