"""What a link puts into the inbox, and what it takes for a will."""

from dataclasses import dataclass

from common.limits import Limits


@dataclass(frozen=True)
class Up:
    """The connection `link` is made; subscriptions of earlier connections are gone."""

    link: str
    limits: Limits


@dataclass(frozen=True)
class Down:
    """The connection `link` broke or could not be made; the link tries again by itself.

    `is_lasting`: the reason is one that somebody has to mend.
    """

    link: str
    reason: str
    is_lasting: bool = False


@dataclass(frozen=True)
class Received:
    """A message arrived; the requester's topic for an answer and its correlation data are MQTT 5's."""

    link: str
    topic: str
    payload: bytes
    response_topic: str | None = None
    correlation: bytes | None = None
    is_retained: bool = False
    """Whether the broker kept it for subscribers that come later."""


@dataclass(frozen=True)
class Room:
    """There is room for more publishes after the window was full."""

    link: str


@dataclass(frozen=True)
class Subscribed:
    """The broker granted a subscription."""

    link: str
    topic: str


@dataclass(frozen=True)
class Denied:
    """The broker refused a subscription or a publish."""

    link: str
    topic: str
    reason: str


@dataclass(frozen=True)
class Broken:
    """A bug surfaced in the link; the loop raises it."""

    link: str
    error: Exception


@dataclass(frozen=True)
class Will:
    """What the broker publishes, retained, when the connection dies."""

    topic: str
    payload: bytes
