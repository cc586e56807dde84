"""What a device keeps on disk: models, its update with the offer of it, the release that it serves."""

import contextlib
import fcntl
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from common.blobs import BlobStore
from common.errors import ConfigError, DataError, DiskFullError, PeerError, WorkError
from common.files import (
    DISK_STATES,
    disk_error,
    hand_over,
    make_folders,
    see_writable,
    state_error,
    sync,
    write_atomic,
)
from common.messages import Label, Offer, ReleaseStatus, decode, encode

log = logging.getLogger(__name__)


class CurrentRelease(msgspec.Struct, frozen=True):
    """The release to serve: its name, the labels (negative, positive), and the TFLite file below the state folder."""

    release: str
    labels: tuple[Label, ...]
    file: str


class DeviceStore:
    """The state folder of one device. Methods raise WorkError when the disk fails or is full.

    What can wait for a disk that is full, read-only or failing does; `trouble` says so until the disk takes data.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trouble = ""
        self.models = BlobStore(folder / "models")
        self.updates = BlobStore(folder / "updates", spare=folder / "spare.tmp")

    @property
    def update_draft(self) -> Path:
        """Where the trainer writes, on the file system of `updates`."""
        return self.folder / "update.tmp"

    def begin_draft(self) -> Path:
        """Make the draft ready for the trainer to write over; where that fails, the trainer will say so."""
        with self._patience():
            self.updates.recycle(self.update_draft)
        return self.update_draft

    def look(self) -> None:
        """See whether the disk takes data: whether it is read-only, or, where it failed, by writing to it."""
        before = self.trouble
        with self._patience():
            self.trouble = ""
            see_writable(self.folder, is_tried=bool(before))
        if before and not self.trouble:
            log.info("the disk takes data again")

    def recover(self) -> None:
        """Look through all models after a start, since they may have met a power cut."""
        with self._patience():
            self.models.recover()

    def keep_models(self, blobs: Iterable[str]) -> None:
        """Delete every model that is not one of `blobs`, nor needed to serve."""
        with self._patience():
            self.models.keep({*blobs, *self.releases()})

    @contextlib.contextmanager
    def _patience(self) -> Iterator[None]:
        """Note that the disk takes no data now, and go on."""
        before = self.trouble
        try:
            yield
        except DiskFullError as error:
            self.trouble = error.state
            if error.state != before:
                log.warning("goes on without its disk: %s", error)

    def offer(self) -> Offer | None:
        """Return the offer that an earlier process kept, if its update is here, whole."""
        path = self.folder / "offer.msgpack"
        with contextlib.suppress(OSError, DataError, PeerError), self._patience():
            offer = decode(path.read_bytes(), Offer)
            self.updates.head(offer.update)
            return offer if self.updates.is_intact(offer.update.id) else None
        return None

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
        path = self.folder / "offer.msgpack"
        with self._patience():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise disk_error(f"{path}: cannot delete it", error) from error
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
    """Hold the lock file `path` while inside; raises ConfigError that names `what` where another process holds it.

    A disk that takes no data now has one that an earlier process made; where not, there is nothing to keep apart.
    """
    with _lock_file(path) or contextlib.nullcontext() as lock:
        try:
            if lock is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"{what} on {path.parent}; stop it, or name another 'state'") from error
        yield


def _lock_file(path: Path) -> IO[str] | None:
    try:
        make_folders(path.parent)
        lock = path.open("w")
        hand_over(path, like=path.parent)
    except OSError as error:
        if error.errno not in DISK_STATES or not path.parent.is_dir():
            raise state_error(f"state: cannot write {path}", error) from error
        log.warning("state: cannot write %s: %s", path, error.strerror)
        with contextlib.suppress(OSError):
            return path.open()
        return None
    return lock


def _read(path: Path) -> CurrentRelease | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=CurrentRelease)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.debug("%s: cannot be used: %s", path, error)
        return None
