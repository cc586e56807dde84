"""What a device keeps on disk: models, its update with the offer of it, the release that it serves."""

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec

from common.blobs import BlobStore
from common.errors import ConfigError, DataError, PeerError, WorkError
from common.files import disk_error, sync, write_atomic
from common.messages import Label, Offer, ReleaseStatus, decode, encode

log = logging.getLogger(__name__)


class CurrentRelease(msgspec.Struct, frozen=True):
    """The release to serve: its name, the labels (negative, positive), and the TFLite file below the state folder."""

    release: str
    labels: tuple[Label, ...]
    file: str


class DeviceStore:
    """The state folder of one device. Methods raise WorkError when the disk fails or is full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = BlobStore(folder / "models")
        self.updates = BlobStore(folder / "updates", spare=folder / "spare.tmp")

    @property
    def update_draft(self) -> Path:
        """Where the trainer writes, on the file system of `updates`."""
        return self.folder / "update.tmp"

    def begin_draft(self) -> Path:
        """Make the draft ready for the trainer to write over."""
        self.updates.recycle(self.update_draft)
        return self.update_draft

    def offer(self) -> Offer | None:
        """Return the offer that an earlier process kept, if its update is here, whole."""
        path = self.folder / "offer.msgpack"
        try:
            offer = decode(path.read_bytes(), Offer)
            self.updates.head(offer.update)
        except (OSError, DataError, PeerError):
            return None
        return offer if self.updates.has(offer.update.id) and self.updates.is_intact(offer.update.id) else None

    def keep_offer(self, offer: Offer) -> None:
        """Keep the offer of an update that is in `updates` already: from here on it survives the end of the process."""
        path = self.folder / "offer.msgpack"
        try:
            path.write_bytes(encode(offer))
        except OSError as error:
            raise disk_error(f"{path}: cannot write", error) from error

    def secure(self, offer: Offer) -> None:
        """Make update and offer durable: from here on they survive a power cut. Any thread may call it.

        A cut that comes before costs the training, nothing else: what is torn does not hash to its name.
        """
        path = self.folder / "offer.msgpack"
        try:
            self.updates.sync(offer.update.id)
            sync(path)
            sync(self.folder)
        except (OSError, WorkError) as error:
            if not (path.exists() and self.updates.has(offer.update.id)):
                return  # answered and dropped meanwhile
            log.warning("round=%d the update is not durable yet: %s", offer.round, error)

    def drop_update(self) -> None:
        """Delete the update and its offer."""
        (self.folder / "offer.msgpack").unlink(missing_ok=True)
        self.updates.keep(())

    def install(self, status: ReleaseStatus) -> None:
        """Make a release whose blob is in `models` the one to serve; readers see the old one or the new one."""
        self.models.sync(
            status.model.id
        )  # other blobs can be fetched again; this one serves while the coordinator is away
        write_atomic(self.folder / "release.json", msgspec.json.encode(self._current(status)))

    def has_installed(self, status: ReleaseStatus) -> bool:
        """Whether `status` is the release to serve already."""
        return current_release(self.folder) == self._current(status)

    def releases(self) -> set[str]:
        """Ids of the blobs that serving may need: the current release's, and that of the last one that worked."""
        found = (current_release(self.folder), good_release(self.folder))
        return {Path(release.file).stem for release in found if release is not None}

    def _current(self, status: ReleaseStatus) -> CurrentRelease:
        file = self.models.body(status.model.id).relative_to(self.folder)
        return CurrentRelease(status.release, status.labels, str(file))


def current_release(folder: Path) -> CurrentRelease | None:
    """Return the release to serve from the state folder `folder`."""
    return _read(folder / "release.json")


def good_release(folder: Path) -> CurrentRelease | None:
    """Return the release that was served last: what to fall back on when the current one is broken."""
    return _read(folder / "served.json")


def keep_good(folder: Path, release: CurrentRelease) -> None:
    """Note that `release` works here. Raises WorkError."""
    write_atomic(folder / "served.json", msgspec.json.encode(release))


@contextlib.contextmanager
def hold(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` while inside; raises ConfigError that names `what` where another process holds it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise ConfigError(
            f"state: cannot write {path}: {error.strerror}; correct 'state' or its permissions"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{what} on {path.parent}; stop it, or name another 'state'") from error
        yield


def _read(path: Path) -> CurrentRelease | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=CurrentRelease)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
