"""What a device keeps on disk: models, its update with the offer of it, the release that it serves."""

from pathlib import Path

import msgspec

from common.blobs import BlobStore
from common.errors import PeerError
from common.files import write_atomic
from common.messages import Label, Offer, ReleaseStatus, decode, encode


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
        self.updates = BlobStore(folder / "updates")

    @property
    def update_draft(self) -> Path:
        """Where the trainer writes, on the file system of `updates`."""
        return self.folder / "update.tmp"

    def offer(self) -> Offer | None:
        """Return the offer that an earlier process kept, if its update is here, whole."""
        path = self.folder / "offer.msgpack"
        try:
            offer = decode(path.read_bytes(), Offer)
            self.updates.head(offer.update)
        except (OSError, PeerError):
            return None
        return offer if self.updates.has(offer.update.id) else None

    def keep_offer(self, offer: Offer) -> None:
        """Keep the offer of an update that is in `updates` already: from here on it survives a power cut."""
        write_atomic(self.folder / "offer.msgpack", encode(offer))

    def drop_update(self) -> None:
        """Delete the update and its offer."""
        (self.folder / "offer.msgpack").unlink(missing_ok=True)
        self.updates.keep(())

    def install(self, status: ReleaseStatus) -> None:
        """Make a release whose blob is in `models` the one to serve; readers see the old one or the new one."""
        file = str(self.models.body(status.model.id).relative_to(self.folder))
        write_atomic(
            self.folder / "release.json", msgspec.json.encode(CurrentRelease(status.release, status.labels, file))
        )


def current_release(folder: Path) -> CurrentRelease | None:
    """Return the release to serve from the state folder `folder`."""
    try:
        return msgspec.json.decode((folder / "release.json").read_bytes(), type=CurrentRelease)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
