"""The JSON documents of protocol 2.0, beside `v2_0`. NEVER EDIT THIS FILE.

It stands for devices and coordinators that are in the field: `test_compat.py` holds what this version sends and reads
against it. What it refuses they refuse, so mend the change and not the copy. It imports nothing of fedpi but
that copy, so that no change there changes it.
"""

import re
from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec

from tests.compat.v2_0 import DeviceId, Label, Metrics, Number, PeerError, Ref, Text, Token, Wire, sparse

Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Flag = Literal[
    "under-voltage",
    "frequency-capped",
    "throttled",
    "temperature-limited",
    "was-under-voltage",
    "was-frequency-capped",
    "was-throttled",
    "was-temperature-limited",
]


class Health(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    temperature_c: Annotated[float, msgspec.Meta(ge=-100, le=300)] | None = None
    flags: Annotated[tuple[Flag, ...], msgspec.Meta(max_length=8)] | None = None
    memory_free_bytes: Bytes | None = None
    disk_free_bytes: Bytes | None = None
    load: Annotated[float, msgspec.Meta(ge=0, le=1000000.0)] | None = None
    card_life_used: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    card_state: Literal["normal", "warning", "urgent"] | None = None
    clock_synchronised: bool | None = None
    unfit: Annotated[str, msgspec.Meta(max_length=500)] = ""


Seconds = Annotated[float, msgspec.Meta(ge=0, le=1000000000.0)]


class CoordinatorStatus(Wire, frozen=True):
    federation: DeviceId
    epoch: Token
    state: Literal["online", "offline"]
    refused: Number = 0
    text: Text = ""
    others: Number = 0


class RoundStatus(Wire, frozen=True):
    epoch: Token
    round: Number
    phase: Literal["idle", "selecting", "reporting", "aggregating", "committed", "abandoned"]
    generation: Token = "0"
    model: Ref | None = None
    goal: Number = 0
    minimum: Number = 0
    invited: Number = 0
    reported: Number = 0
    text: Text = ""


class ReleaseStatus(Wire, frozen=True):
    release: Label
    model: Ref
    labels: tuple[Label, ...]
    round: Number
    text: Text = ""


class DeviceStatus(Wire, frozen=True):
    device: DeviceId
    nonce: Token
    state: Literal["online", "offline"]
    doing: Text = ""
    release: Annotated[str, msgspec.Meta(max_length=100)] = ""
    refused: Number = 0
    text: Text = ""
    health: Health | None = None


class StoryEvent(Wire, frozen=True):
    event: Label
    text: Text
    round: Number = 0
    device: Annotated[str, msgspec.Meta(max_length=32)] = ""
    fraction: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    metrics: Metrics = {}  # noqa: RUF012 - msgspec copies defaults


class Prediction(Wire, frozen=True):
    device: DeviceId
    request: Token
    ok: bool
    label: Annotated[str, msgspec.Meta(max_length=100)] = ""
    probability: float = 0.0
    release: Annotated[str, msgspec.Meta(max_length=100)] = ""
    milliseconds: float = 0.0
    text: Text = ""


Story: TypeAlias = CoordinatorStatus | RoundStatus | ReleaseStatus | DeviceStatus | StoryEvent | Prediction
_SIGNATURE = re.compile(b',"signature":"([0-9A-Za-z._-]{1,200})"}\\Z')
T = TypeVar("T")


def encode_story(document: Story) -> bytes:
    return msgspec.json.encode(sparse(document, msgspec.to_builtins(document)))


def decode_story(payload: bytes, expected: type[T]) -> T:
    try:
        return msgspec.json.decode(unsigned(payload)[0], type=expected)
    except (ValueError, RecursionError) as error:
        raise PeerError(f"not a valid {expected.__name__}: {str(error)[:200]}") from error


def unsigned(payload: bytes) -> tuple[bytes, str]:
    match = _SIGNATURE.search(payload, max(len(payload) - 250, 0))
    return (payload[: match.start()] + b"}", match[1].decode("ascii")) if match else (payload, "")


MAX_MEMBERS = 1000
MAX_ROUNDS = 100


class _Told(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class MemberProgress(_Told, frozen=True):
    device: DeviceId
    standing: Literal[
        "joined", "invited", "accepted", "delivering", "reported", "declined", "failed", "refused", "missing", "unable"
    ]
    examples: Number = 0
    update_bytes: Number = 0
    received_bytes: Number = 0
    seconds: Seconds = 0.0


class RoundMembers(_Told, frozen=True):
    round: Number
    members: Annotated[tuple[MemberProgress, ...], msgspec.Meta(max_length=MAX_MEMBERS)] = ()
    hidden: Number = 0
    text: Text = ""


class PastRound(_Told, frozen=True):
    round: Number
    phase: Literal["committed", "abandoned"]
    invited: Number
    reported: Number
    closed: Annotated[float, msgspec.Meta(ge=0, le=1000000000000.0)]
    seconds: Seconds
    bytes_down: Number = 0
    bytes_up: Number = 0
    metrics: Metrics = {}
    reason: Text = ""


class PastRounds(_Told, frozen=True):
    rounds: Annotated[tuple[PastRound, ...], msgspec.Meta(max_length=MAX_ROUNDS)] = ()
    text: Text = ""
