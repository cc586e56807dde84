"""Every topic, built and parsed in one place: one table says who publishes and who reads what.

Two roots keep people and bulk apart: below `fedpi/` travel only small JSON documents, so that
`mosquitto_sub -v -t 'fedpi/#'` reads like a story; below `fedpi-wire/` travels msgpack.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from common.errors import PeerError

VERSION = "2"
STORY_ROOT = "fedpi"
WIRE_ROOT = "fedpi-wire"
SERVED_VERSIONS = (VERSION, "1")
"""By whose topics a device answers requests for predictions, which are the same in both: an application that was
written for fedpi 0.1 goes on when the devices are upgraded."""
HOME_ASSISTANT_ROOT = "homeassistant"
"""Where Home Assistant looks for what to show. No topic of ours: the coordinator alone publishes there, if told to."""
NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?\Z"
"""Federations and devices: 1 to 32 of `a-z 0-9 -`, no hyphen at either end, so that any broker routes them."""


class Party(StrEnum):
    """Who may hold a topic: the coordinator (and its operator), or a device."""

    COORDINATOR = "coordinator"
    DEVICE = "device"


class Kind(StrEnum):
    """What a topic carries. The value is the last level of the topic."""

    COORD_STATUS = "coord/status"
    COORD_ROUND = "coord/round"
    COORD_RELEASE = "coord/release"
    COORD_EVENT = "coord/event"
    COORD_MEMBERS = "coord/members"
    COORD_ROUNDS = "coord/rounds"
    DEV_STATUS = "dev/status"
    DEV_EVENT = "dev/event"
    DEV_PREDICTION = "dev/prediction"
    COORD_PEER = "coord/peer"
    BLOB = "blob"
    DEV_UP = "dev/up"
    DEV_SAY = "dev/say"
    DEV_CMD = "dev/cmd"
    DEV_INFER = "dev/infer"


@dataclass(frozen=True)
class Topic:
    """One row of the table: the pattern with `{federation}`, `{device}` or `{blob}` in it, and its rules."""

    kind: Kind
    pattern: str
    publisher: Party
    readers: tuple[Party, ...]
    carries: str
    retained: bool = False
    versions: tuple[str, ...] = (VERSION,)
    """Of the protocol, by whose topics it travels: the pattern is the first one's."""


_S = f"{STORY_ROOT}/{VERSION}/{{federation}}"
_W = f"{WIRE_ROOT}/{VERSION}/{{federation}}"
_C, _D = Party.COORDINATOR, Party.DEVICE

TABLE: tuple[Topic, ...] = (
    Topic(Kind.COORD_STATUS, f"{_S}/coord/status", _C, (_D,), "CoordinatorStatus (JSON); also the will", True),
    Topic(Kind.COORD_ROUND, f"{_S}/coord/round", _C, (_D,), "RoundStatus (JSON)", True),
    Topic(Kind.COORD_RELEASE, f"{_S}/coord/release", _C, (_D,), "ReleaseStatus (JSON)", True),
    Topic(Kind.COORD_EVENT, f"{_S}/coord/event", _C, (), "StoryEvent (JSON), for people"),
    Topic(Kind.COORD_MEMBERS, f"{_S}/coord/members", _C, (), "RoundMembers (JSON), for people", True),
    Topic(Kind.COORD_ROUNDS, f"{_S}/coord/rounds", _C, (), "PastRounds (JSON), for people", True),
    Topic(Kind.DEV_STATUS, f"{_S}/dev/{{device}}/status", _D, (_C,), "DeviceStatus (JSON); also the will", True),
    Topic(Kind.DEV_EVENT, f"{_S}/dev/{{device}}/event", _D, (_C,), "StoryEvent (JSON), for people"),
    Topic(
        Kind.DEV_PREDICTION, f"{_S}/dev/{{device}}/prediction", _D, (_C,), "Prediction (JSON)", versions=SERVED_VERSIONS
    ),
    Topic(Kind.COORD_PEER, f"{_W}/coord/peer", _C, (_C,), "Probe, Alive: between coordinators"),
    Topic(Kind.BLOB, f"{_W}/blob/{{blob}}", _C, (_D,), "Chunk: one publish for every device"),
    Topic(Kind.DEV_UP, f"{_W}/dev/{{device}}/up", _D, (_C,), "Chunk: a device's update"),
    Topic(
        Kind.DEV_SAY,
        f"{_W}/dev/{{device}}/say",
        _D,
        (_C,),
        "Hello, CheckIn, Accept, Decline, Want, Offer, Failed, Bye",
    ),
    Topic(Kind.DEV_CMD, f"{_W}/dev/{{device}}/cmd", _C, (_D,), "Invite, Want, Receipt, Refusal, Result, Takeover"),
    Topic(
        Kind.DEV_INFER, f"{_W}/dev/{{device}}/infer", _C, (_D,), "the bytes of one image file", versions=SERVED_VERSIONS
    ),
)

_BY_KIND = {row.kind: row for row in TABLE}
_LEVEL = r"([a-z0-9-]{1,64})"
_PARSERS = tuple(
    (
        row.kind,
        re.compile(re.sub(r"\\{(\w+)\\}", lambda m: _LEVEL.replace("(", f"(?P<{m[1]}>", 1), re.escape(row.pattern))),
    )
    for row in TABLE
)


@dataclass(frozen=True)
class Address:
    """A topic taken apart: its kind, and the names that stood in it (empty where it has none)."""

    kind: Kind
    federation: str
    device: str = ""
    blob: str = ""


@lru_cache(maxsize=4096)
def topic(kind: Kind, federation: str, *, device: str = "", blob: str = "") -> str:
    """Build the topic of `kind`; `device="+"` gives a filter. A blob id is shortened to its first 16 digits."""
    return _BY_KIND[kind].pattern.format(federation=federation, device=device, blob=blob[:16])


def of_version(version: str, name: str) -> str:
    """Return the topic, filter or pattern `name` as that version of the protocol has it."""
    root, _, rest = name.split("/", 2)
    return f"{root}/{version}/{rest}"


@lru_cache(maxsize=4096)
def parse(name: str) -> Address:
    """Take `name` apart; raises PeerError for a topic that is not in the table."""
    for kind, pattern in _PARSERS:
        if match := pattern.fullmatch(name):
            return Address(kind, **match.groupdict())
    raise PeerError(f"topic {name[:200]!r} is not one of fedpi's")
