"""The models that devices may ask for: the global model, the open round's base, the release. Checked, and tidied up."""

import logging

from common.blobs import BlobStore
from common.chunks import layout_of
from common.errors import ConfigError, DataError, PeerError
from common.files import write_atomic
from common.messages import Ref
from common.weights import Spec
from coordinator import outcome
from coordinator.aggregator import Aggregator
from coordinator.config import CoordinatorConfig
from coordinator.distributor import Distributor
from coordinator.store import Release, Store

log = logging.getLogger(__name__)


class Stock:
    """What one coordinator holds ready. The store holds a global model already.

    Whatever reads the global model raises DataError where its file is damaged. A release whose file is damaged, or
    that this account cannot read, is left out: `trouble` says so until another one is exported.
    """

    def __init__(self, config: CoordinatorConfig, store: Store, blobs: BlobStore, distributor: Distributor) -> None:
        self.trouble = ""
        self._config = config
        self._store = store
        self._blobs = blobs
        self._releases = BlobStore(config.releases)
        self._distributor = distributor
        self._judged: Release | None = None
        self._spec: tuple[str, Spec] | None = None
        self._is_untidy = True

    def close(self) -> None:
        """Close all files."""
        self._releases.close()

    def model(self) -> Ref:
        """Return the global model."""
        model = self._store.global_model()
        assert model is not None  # noqa: S101 - `serve` is only called once there is one
        return model

    def spec(self, base: Ref) -> Spec:
        """Return the tensors of a model."""
        if self._spec is None or self._spec[0] != base.id:
            self._spec = (base.id, self._blobs.head(base).spec or ())
        return self._spec[1]

    def moments(self, aggregator: Aggregator) -> Ref | None:
        """Return what the strategy remembers of the last round."""
        strategy = self._config.strategy.title
        moments = outcome.read_moments(self._store.fact("moments"))
        if moments is None or moments.strategy != strategy:
            return None
        if not aggregator.has(moments.ref):
            log.warning("strategy=%s its moments are gone from the state folder: it begins anew", strategy)
            return None
        return moments.ref

    # ---- what is on offer -------------------------------------------------------------------

    def check(self, base: Ref | None) -> None:
        """See that the files of the global model and of the open round's base are whole."""
        for ref in {ref.id: ref for ref in (self.model(), base) if ref is not None}.values():
            try:
                self._blobs.verify(ref)
            except DataError as error:
                raise self._damaged(error) from error

    def offer(self, base: Ref | None) -> bool:
        """Hold ready what devices may ask for, where `base` is the open round's; returns whether that is a change."""
        for blob, error in self._distributor.take_damaged().items():
            if self._judged is None or blob != self._judged.model.id:
                raise self._damaged(error)
            self._leave_out(self._judged, error)
        models = [ref for ref in (self.model(), base) if ref is not None]
        stock = [(ref, self._blobs) for ref in models]
        release = self.release()
        if release is not None:
            stock.append((release.model, self._releases))
        is_change = self._distributor.offer(stock)
        self._is_untidy = self._is_untidy or is_change
        return is_change

    def release(self) -> Release | None:
        """Return the release to serve, unless its file cannot be used."""
        release = self._store.newest_release()
        if release is not None and release != self._judged:
            self._judged, self.trouble = release, ""
            try:
                layout_of(release.model)
                self._releases.verify(release.model)
            except (DataError, PeerError) as error:
                self._leave_out(release, error)
        return None if self.trouble else release

    def recut(self, chunk_bytes: int) -> None:
        """Cut the global model anew, into chunks of `chunk_bytes`. Raises ConfigError where they would be too many."""
        model = self.model()
        copy = self._config.folder / "recut.tmp"
        write_atomic(copy, self._blobs.body(model.id).read_bytes())
        cut = self._blobs.add(copy, self._blobs.head(model).spec, chunk_bytes)
        try:
            layout_of(cut)
        except PeerError as error:
            raise ConfigError(
                f"this broker only carries chunks of {chunk_bytes} bytes: {error}; raise its limit"
            ) from error
        self._store.set_global_model(cut)
        log.warning("cut the global model into chunks of %d bytes, which is what the broker carries", chunk_bytes)

    def tidy(self, base: Ref | None, aggregator: Aggregator) -> None:
        """Delete the models that nobody needs any more."""
        if self._is_untidy:
            self._is_untidy = False
            best = outcome.read_best(self._store.fact("best"))
            needed = (self.model(), base, best.model if best else None)
            self._blobs.keep(ref.id for ref in needed if ref is not None)
            moments = outcome.read_moments(self._store.fact("moments"))
            aggregator.keep([moments.ref] if moments else [])

    def _leave_out(self, release: Release, error: Exception) -> None:
        self.trouble = f"Release {release.release} cannot be offered: {error}; run fedpi-coordinator export --release."
        log.error("release=%s cannot be offered: %s; export it again", release.release, error)

    def _damaged(self, error: Exception) -> DataError:
        return DataError(f"the global model cannot be used: {error}; put {self._config.folder} back from a backup")
