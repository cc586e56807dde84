"""Publishes blobs to the fleet, each chunk once for all, never more than a window at a time."""

from collections.abc import Iterable

from common.blobs import BlobStore
from common.chunks import from_wire, indexes, layout_of, to_wire
from common.config import TransferConfig
from common.errors import DataError, PeerError
from common.link import Link
from common.messages import Chunk, Ref, Want, encode
from common.topics import Kind, topic
from coordinator.budgets import Budgets, OverBudgetError
from coordinator.multicast import Distribution, gather, release, take


class Distributor:
    """The blobs that devices may ask for, and what of them is on its way."""

    def __init__(self, federation: str, transfer: TransferConfig, bulk: Link) -> None:
        self._federation = federation
        self._merge_s = transfer.merge_s
        self._bulk = bulk
        self._distributions: dict[str, Distribution] = {}
        self._stores: dict[str, BlobStore] = {}
        self._sent: dict[str, int] = {}
        """Bitmap of the chunks that were published: one that is asked for again may be damaged on the disk."""
        self._damaged: dict[str, DataError] = {}

    def offer(self, stock: Iterable[tuple[Ref, BlobStore]]) -> bool:
        """Hold exactly these ready, each from its store; returns whether that is a change."""
        wanted = {ref.id: (ref, blobs) for ref, blobs in stock}
        if wanted.keys() == self._distributions.keys():
            return False
        kept = self._distributions
        self._distributions = {
            blob: kept.get(blob) or Distribution(ref, layout_of(ref)) for blob, (ref, _) in wanted.items()
        }
        self._stores = {blob: blobs for blob, (_, blobs) in wanted.items()}
        self._sent = {blob: self._sent.get(blob, 0) for blob in wanted}
        return True

    def take_damaged(self) -> dict[str, DataError]:
        """Return why blobs could not be read since the last time; they are on offer no more."""
        damaged, self._damaged = self._damaged, {}
        return damaged

    def gather(self, want: Want, now: float, budgets: Budgets) -> None:
        """Add a device's wish, as far as its budget goes; raises PeerError for a blob that is not on offer.

        Raises OverBudgetError where the budget does not reach for the whole wish. Chunks that are about to be published
        for somebody else cost nothing.
        """
        distribution = self._distributions.get(want.blob)
        if distribution is None:
            raise PeerError(f"{want.device} asks for blob {want.blob[:8]}, which is not on offer")
        total, pending = distribution.layout.total, distribution.wanted | distribution.queued
        bits = from_wire(want.chunks, total)
        granted = budgets.grant(want.device, want.blob, total, bits & ~pending, now)
        wish = to_wire(bits & pending | granted)
        self._distributions[want.blob] = gather(distribution, want.device, wish, now + self._merge_s)
        if granted != bits & ~pending:
            raise OverBudgetError(f"{want.device} exceeds its budget of chunks of blob {want.blob[:8]}")

    def release(self, present: frozenset[str], now: float) -> None:
        """Queue what is due."""
        for blob, distribution in self._distributions.items():
            self._distributions[blob] = release(distribution, present, now)

    def publish(self) -> int:
        """Publish queued chunks while there is room; returns the bytes published."""
        published = 0
        for blob, distribution in list(self._distributions.items()):
            if not distribution.queued:
                continue
            self._distributions[blob], chosen = take(distribution, self._bulk.room())
            try:
                published += sum(self._publish(distribution, index) for index in indexes(chosen))
            except DataError as error:
                self._damaged[blob] = error
                del self._distributions[blob]
        return published

    def _publish(self, distribution: Distribution, index: int) -> int:
        ref, blobs = distribution.ref, self._stores[distribution.ref.id]
        is_again = bool(self._sent[ref.id] >> index & 1)
        data = blobs.read(ref, distribution.layout, index, is_checked=is_again)
        self._sent[ref.id] |= 1 << index
        name = topic(Kind.BLOB, self._federation, blob=ref.id)
        payload = encode(Chunk(blob=ref.id, index=index, data=data))
        self._bulk.publish(name, payload)
        return len(payload) + len(name)
