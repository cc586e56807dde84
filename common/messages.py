"""The vocabulary of the wire: one frozen struct a message.

Any bytes give a message or PeerError, never another exception. Commands and chunks are plain
msgpack maps whose `type` names the struct; what people read are JSON documents.
`docs/protocol.md` says who sends each one when. A field that has its default is not sent, so that a
version which knows a new option can speak to one that does not, as long as the option is not used.
"""

import re
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

import msgpack
import msgspec

from common import topics
from common.errors import PeerError
from common.health import Health
from common.packing import MALFORMED, Wire, convert, pack, sparse

DeviceId = Annotated[str, msgspec.Meta(pattern=topics.NAME_PATTERN, max_length=32)]
BlobId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z", max_length=64)]
Token = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{1,32}\Z", max_length=32)]
Text = Annotated[str, msgspec.Meta(max_length=500)]
MAX_LABEL = 100
Label = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_LABEL)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
"""Integers that every language's numbers hold exactly."""
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
FIGURE_MAX = 1e30
Figure = Annotated[float, msgspec.Meta(ge=-FIGURE_MAX, le=FIGURE_MAX)]
"""Neither infinite nor not-a-number, so that JSON can carry it and a mean of many stays finite."""
Ability = Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
MAX_ABILITIES = 64
Abilities = Annotated[tuple[Ability, ...], msgspec.Meta(max_length=MAX_ABILITIES)]
MAX_METRICS = 64
Metrics = Annotated[dict[Label, Figure], msgspec.Meta(max_length=MAX_METRICS)]
Signature = Annotated[str, msgspec.Meta(max_length=200)]
Options = Annotated[dict[Label, Any], msgspec.Meta(max_length=64)]
Data = Annotated[bytes, msgspec.Meta(max_length=2**18)]
Bitmap = Annotated[bytes, msgspec.Meta(max_length=2**14)]
"""Bit `i` of byte `i // 8`, least significant first, stands for chunk `i`."""


class Ref(Wire, frozen=True):
    """Names a blob and what a receiver must know to ask for it (see `chunks`): sizes in bytes."""

    id: BlobId
    head_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**23)]
    size: Annotated[int, msgspec.Meta(ge=0, le=2**34)]
    chunk_bytes: Annotated[int, msgspec.Meta(ge=2**12, le=2**18)]


# ---- bulk, both ways ------------------------------------------------------------------------


class Chunk(Wire, frozen=True, tag=True):
    """One piece of a blob's stream: first the head's chunks, then the body's."""

    blob: BlobId
    index: Annotated[int, msgspec.Meta(ge=0, le=2**17)]
    data: Data


class Want(Wire, frozen=True, tag=True):
    """A receiver asks for the chunks whose bits are set. A repeat asks again for what did not come."""

    device: DeviceId
    blob: BlobId
    chunks: Bitmap


# ---- device to coordinator ------------------------------------------------------------------


class Hello(Wire, frozen=True, tag=True):
    """I am here; `nonce` tells this connection from an earlier one of the same device.

    `epoch` is the coordinator's as this device last heard it, "0" before that. `abilities` name what the device can do
    beyond version 2.0.
    """

    device: DeviceId
    nonce: Token
    epoch: Token = "0"
    abilities: Abilities = ()


class Bye(Wire, frozen=True, tag=True):
    """I leave on purpose: do not wait for me."""

    device: DeviceId
    nonce: Token


class CheckIn(Wire, frozen=True, tag=True):
    """I would take part in this round; while it waits for updates, or is over: tell me where I stand in it."""

    device: DeviceId
    round: Positive
    generation: Token


class Accept(Wire, frozen=True, tag=True):
    """I have the invitation and start."""

    device: DeviceId
    round: Positive
    generation: Token


class Decline(Wire, frozen=True, tag=True):
    """I cannot take part, though I checked in or have the invitation; the reason is a sentence."""

    device: DeviceId
    round: Positive
    generation: Token
    reason: Text


class Failed(Wire, frozen=True, tag=True):
    """My training of this round ended without an update; the reason is a sentence."""

    device: DeviceId
    round: Positive
    generation: Token
    reason: Text


class Offer(Wire, frozen=True, tag=True):
    """My update is ready: local weights - global weights of the base in the plan whose SHA-256 is `plan`."""

    device: DeviceId
    round: Positive
    generation: Token
    plan: BlobId
    update: Ref
    num_examples: Positive
    metrics: Metrics = {}  # noqa: RUF012 - msgspec copies defaults


# ---- coordinator to device ------------------------------------------------------------------


class Invite(Wire, frozen=True, tag=True):
    """You are in this round's cohort: train as `plan` says, a RoundPlan in msgpack (`common.plan`).

    Its SHA-256 is in the offer, so it travels as the bytes that the coordinator wrote.
    """

    device: DeviceId
    round: Positive
    generation: Token
    plan: Annotated[bytes, msgspec.Meta(max_length=2**16)]


class Receipt(Wire, frozen=True, tag=True):
    """Your update is here, whole and admitted. Keep it until the round is over."""

    device: DeviceId
    round: Positive
    generation: Token
    update: BlobId


class Refusal(Wire, frozen=True, tag=True):
    """Your check-in or update does not count; the reason is a sentence."""

    device: DeviceId
    round: Positive
    generation: Token
    reason: Text


class Result(Wire, frozen=True, tag=True):
    """The round is over: whether your update is part of the new global model, and if not, why."""

    device: DeviceId
    round: Positive
    generation: Token
    counted: bool
    reason: Text = ""


class Takeover(Wire, frozen=True, tag=True):
    """The connection `nonce` of your name was followed by the connection `by`: yours, or another process's."""

    device: DeviceId
    nonce: Token
    by: Token


Say: TypeAlias = Hello | Bye | CheckIn | Accept | Decline | Failed | Offer | Want
Command: TypeAlias = Invite | Receipt | Refusal | Result | Takeover | Want


class Signed(Wire, frozen=True, tag=True):
    """An envelope, where parties sign: `body` is the msgpack message (`common.signing`)."""

    body: Data
    signature: Signature


# ---- what people read -----------------------------------------------------------------------


class CoordinatorStatus(Wire, frozen=True):
    """Retained, and the will with `state: offline`. A new `epoch` (one a start) asks every device for a Hello."""

    federation: DeviceId
    epoch: Token
    state: Literal["online", "offline"]
    refused: Number = 0
    """Messages dropped since the start because they broke the protocol."""
    text: Text = ""
    others: Number = 0
    """Other coordinators of this federation that run as well: while there is one, no round is opened."""


class RoundStatus(Wire, frozen=True):
    """Retained: the current round, or the last one that ended. `model` is the global model to hold now.

    A round keeps the `generation` of the coordinator's start that opened it. Counts, no names: each device learns on
    its own topic where it stands.
    """

    epoch: Token
    round: Number
    phase: Literal["idle", "selecting", "reporting", "aggregating", "committed", "abandoned"]
    generation: Token = "0"
    """"0" before the first round."""
    model: Ref | None = None
    goal: Number = 0
    minimum: Number = 0
    invited: Number = 0
    reported: Number = 0
    text: Text = ""


class ReleaseStatus(Wire, frozen=True):
    """Retained: the TFLite model that every device is to serve."""

    release: Label
    model: Ref
    labels: tuple[Label, ...]
    round: Number
    text: Text = ""


class DeviceStatus(Wire, frozen=True):
    """Retained, and the will with `state: offline`."""

    device: DeviceId
    nonce: Token
    state: Literal["online", "offline"]
    doing: Text = ""
    release: Annotated[str, msgspec.Meta(max_length=100)] = ""
    refused: Number = 0
    text: Text = ""
    health: Health | None = None


class StoryEvent(Wire, frozen=True):
    """Something that happened, for a person: a kind, the numbers that go with it, one sentence."""

    event: Label
    text: Text
    round: Number = 0
    device: Annotated[str, msgspec.Meta(max_length=32)] = ""
    fraction: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    metrics: Metrics = {}  # noqa: RUF012 - msgspec copies defaults


class Prediction(Wire, frozen=True):
    """The answer to one image. `request` is the first 16 digits of the SHA-256 of the image's bytes."""

    device: DeviceId
    request: Token
    ok: bool
    label: Annotated[str, msgspec.Meta(max_length=100)] = ""
    probability: float = 0.0
    """The model's probability of the positive label, whatever `label` says."""
    release: Annotated[str, msgspec.Meta(max_length=100)] = ""
    milliseconds: float = 0.0
    text: Text = ""


Story: TypeAlias = CoordinatorStatus | RoundStatus | ReleaseStatus | DeviceStatus | StoryEvent | Prediction
_BY_TYPE: dict[tuple[Any, Any], Any] = {
    (union, kind.__name__): kind for union in (Say, Command) for kind in get_args(union)
}
_SIGNATURE = re.compile(rb',"signature":"([0-9A-Za-z._-]{1,200})"}\Z')
"""Within a string of JSON these quotes would stand behind backslashes, so nothing that a peer writes looks like it."""
T = TypeVar("T")


def encode(message: Chunk | Say | Command | Signed) -> bytes:
    """Write a message of the wire as a msgpack map."""
    return pack(message)


def encode_story(document: Story) -> bytes:
    """Write what people read as JSON."""
    return msgspec.json.encode(sparse(document, msgspec.to_builtins(document)))


def decode(payload: bytes, expected: Any) -> Any:
    """Read one of the message types `expected` (`Say`, `Command` or one struct); raises PeerError for anything else."""
    try:
        plain = msgpack.unpackb(payload, raw=False, strict_map_key=True, use_list=True)
        if isinstance(plain, dict):  # one struct is several times faster to convert to than a union
            expected = _BY_TYPE.get((expected, plain.get("type")), expected)
        return convert(plain, expected)
    except MALFORMED as error:
        raise PeerError(f"not a valid message: {str(error)[:200]}") from error


def decode_story(payload: bytes, expected: type[T]) -> T:
    """Read a JSON document of type `expected`, signed or not; raises PeerError for anything else."""
    try:
        return msgspec.json.decode(unsigned(payload)[0], type=expected)
    except (ValueError, RecursionError) as error:
        raise PeerError(f"not a valid {expected.__name__}: {str(error)[:200]}") from error


def unsigned(payload: bytes) -> tuple[bytes, str]:
    """Part a JSON document from its signature, which is empty where there is none."""
    match = _SIGNATURE.search(payload, max(len(payload) - 250, 0))
    return (payload[: match.start()] + b"}", match[1].decode("ascii")) if match else (payload, "")


def clip(text: str, limit: int = 500) -> str:
    """Shorten a sentence so that it fits a message."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
