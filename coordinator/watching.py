"""What the federation tells people, gathered into one picture. Pure: no clock, no connection, no screen."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from common import topics
from common.chronicle import PastRounds, RoundMembers
from common.errors import PeerError
from common.messages import (
    CoordinatorStatus,
    DeviceStatus,
    ReleaseStatus,
    RoundStatus,
    StoryEvent,
    decode_story,
)
from common.topics import Kind
from coordinator.wording import headline


@dataclass(frozen=True)
class Forgotten:
    """A device was taken out: its retained status is gone."""

    device: str

    @property
    def text(self) -> str:
        """The sentence for people."""
        return f"{self.device} was taken out."


Watched: TypeAlias = (
    Forgotten | CoordinatorStatus | RoundStatus | ReleaseStatus | DeviceStatus | StoryEvent | RoundMembers | PastRounds
)
DOCUMENTS: Mapping[Kind, type[Watched]] = {
    Kind.COORD_STATUS: CoordinatorStatus,
    Kind.COORD_ROUND: RoundStatus,
    Kind.COORD_RELEASE: ReleaseStatus,
    Kind.COORD_EVENT: StoryEvent,
    Kind.COORD_MEMBERS: RoundMembers,
    Kind.COORD_ROUNDS: PastRounds,
    Kind.DEV_STATUS: DeviceStatus,
    Kind.DEV_EVENT: StoryEvent,
}
"""What the picture is made of, by topic."""
KEPT_EVENTS = 50
_PLACES: Mapping[type[Watched], str] = {
    CoordinatorStatus: "coordinator",
    RoundStatus: "round",
    RoundMembers: "members",
    PastRounds: "past",
    ReleaseStatus: "release",
}


@dataclass(frozen=True)
class DevicePicture:
    """A device's last status, and how far its training is while it trains: 0 to 1."""

    status: DeviceStatus
    trained: float | None = None


@dataclass(frozen=True)
class Picture:
    """All that is known. `events` are (Unix time, sentence), oldest first; `malformed` counts what was dropped."""

    federation: str
    connection: str = "connecting"
    coordinator: CoordinatorStatus | None = None
    round: RoundStatus | None = None
    members: RoundMembers | None = None
    past: PastRounds | None = None
    release: ReleaseStatus | None = None
    devices: Mapping[str, DevicePicture] = field(default_factory=dict)
    events: tuple[tuple[float, str], ...] = ()
    malformed: int = 0


def read(name: str, payload: bytes, federation: str) -> Watched:
    """Read one message of the federation's story; raises PeerError for one that breaks the protocol."""
    address = topics.parse(name)
    if address.kind not in DOCUMENTS or address.federation != federation:
        raise PeerError(f"topic {name!r} is not part of the story of {federation}")
    if address.kind is Kind.DEV_STATUS and not payload:
        return Forgotten(address.device)
    document = decode_story(payload, DOCUMENTS[address.kind])
    if address.device and getattr(document, "device", "") != address.device:
        raise PeerError(f"{address.device} speaks as another device")
    return document


def take(picture: Picture, document: Watched, at: float) -> Picture:
    """Add a message that came `at` a Unix time."""
    sentence = news(picture, document)
    if sentence and not _is_drawn(picture, document):
        picture = replace(picture, events=(*picture.events, (at, sentence))[-KEPT_EVENTS:])
    if (place := _PLACES.get(type(document))) is not None:
        found: dict[str, Any] = {place: document}
        return replace(picture, **found)
    match document:
        case Forgotten(device=device):
            return replace(picture, devices={name: d for name, d in picture.devices.items() if name != device})
        case DeviceStatus() if not _is_late(picture, document):
            return _with_status(picture, document)
        case StoryEvent(fraction=float(), device=device) if device in picture.devices:
            drawn = replace(picture.devices[device], trained=document.fraction)
            return replace(picture, devices={**picture.devices, device: drawn})
    return picture


def news(picture: Picture, document: Watched) -> str:
    """Tell what a message adds to the picture; nothing where it only says again what is known."""
    if isinstance(document, StoryEvent):
        return f"{document.text} {headline(document.metrics)}".strip()
    if isinstance(document, RoundMembers | PastRounds):
        return ""
    if isinstance(document, Forgotten):
        return document.text if document.device in picture.devices else ""
    if isinstance(document, DeviceStatus) and _is_late(picture, document):
        return ""
    known = _known(picture, document)
    return "" if known is not None and known.text == document.text else document.text


def _with_status(picture: Picture, status: DeviceStatus) -> Picture:
    known = picture.devices.get(status.device)
    goes_on = known is not None and (known.status.state, known.status.doing) == (status.state, status.doing)
    drawn = DevicePicture(status, known.trained if known and goes_on else None)
    return replace(picture, devices=dict(sorted({**picture.devices, status.device: drawn}.items())))


def _is_late(picture: Picture, status: DeviceStatus) -> bool:
    """Whether this is the will of a connection that the device has long replaced."""
    known = picture.devices.get(status.device)
    return status.state == "offline" and known is not None and known.status.nonce != status.nonce


def _is_drawn(picture: Picture, document: Watched) -> bool:
    """Whether a device's own line shows it anyway: what it does, how far its training is."""
    if isinstance(document, StoryEvent | Forgotten):
        return getattr(document, "fraction", None) is not None
    known = _known(picture, document)
    return isinstance(document, DeviceStatus) and isinstance(known, DeviceStatus) and known.state == document.state


def _known(picture: Picture, document: Watched) -> Any:
    """What stands in the place of a retained document now."""
    if isinstance(document, DeviceStatus):
        device = picture.devices.get(document.device)
        return device.status if device else None
    return getattr(picture, _PLACES[type(document)])
