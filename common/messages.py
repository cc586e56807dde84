"""The vocabulary of the wire: one frozen struct a message.

Any bytes give a message or PeerError, never another exception. Commands and chunks are plain
msgpack maps whose `type` names the struct; what people read are JSON documents.
`docs/protocol.md` says who sends each one when.
"""

import re
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

import msgpack
import msgspec

from common import topics
from common.errors import PeerError
from common.health import Health

DeviceId = Annotated[str, msgspec.Meta(pattern=topics.NAME_PATTERN, max_length=32)]
BlobId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z", max_length=64)]
Token = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{1,32}\Z", max_length=32)]
Text = Annotated[str, msgspec.Meta(max_length=500)]
Label = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
FIGURE_MAX = 1e30
Figure = Annotated[float, msgspec.Meta(ge=-FIGURE_MAX, le=FIGURE_MAX)]
"""Neither infinite nor not-a-number, so that JSON can carry it and a mean of many stays finite."""
MAX_METRICS = 64
Metrics = Annotated[dict[Label, Figure], msgspec.Meta(max_length=MAX_METRICS)]
Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Signature = Annotated[str, msgspec.Meta(max_length=200)]
Options = Annotated[dict[Label, Any], msgspec.Meta(max_length=64)]
Data = Annotated[bytes, msgspec.Meta(max_length=2**18)]
Bitmap = Annotated[bytes, msgspec.Meta(max_length=2**14)]
"""Bit `i` of byte `i // 8`, least significant first, stands for chunk `i`."""


class _Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A message; its tag is its class name."""


class Ref(_Wire, frozen=True):
    """Names a blob and what a receiver must know to ask for it (see `chunks`): sizes in bytes."""

    id: BlobId
    head_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**23)]
    size: Annotated[int, msgspec.Meta(ge=0, le=2**34)]
    chunk_bytes: Annotated[int, msgspec.Meta(ge=2**12, le=2**18)]


class ModelChoice(_Wire, frozen=True):
    """Which model to build: a name from the device's registry, and that model's options."""

    name: Label
    options: Options = {}

    def __post_init__(self) -> None:
        """Refuse options that JSON cannot carry to the training process: msgpack knows more types."""
        msgspec.json.encode(self.options)


class Plan(_Wire, frozen=True):
    """What an invited device trains: local epochs over its own examples, with Adam unless the model says otherwise."""

    model: ModelChoice
    epochs: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 1
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 16
    learning_rate: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1e-3
    seed: Number = 0
    deadline_s: Annotated[float, msgspec.Meta(gt=0, le=1e7)] = 600.0
    evaluate: bool = True
    """Whether the device first measures the global model on the part of its data that it never trains on."""
    steps: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """Local steps of the optimizer in place of epochs; 0: `epochs` counts."""
    proximal_mu: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.0
    """Adds (mu / 2) |local - global|^2 to the loss (FedProx: Li et al. 2020, equation 2); 0: no such term."""
    clip_norm: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    """Largest norm of a step's gradient, over all tensors together; 0: any."""
    class_weights: bool = False
    """Whether both labels weigh alike in the loss, however many examples the device has of each."""
    batch_norm: Literal["model", "frozen", "averaged", "local"] = "model"
    """What becomes of BatchNorm's tensors; `local` ones stay on the device (FedBN: Li et al. 2021). `model`: as its
    options say."""
    personal: Annotated[tuple[Pattern, ...], msgspec.Meta(max_length=64)] = ()
    """Tensors whose names match one of these shell patterns stay on the device: their update is zero."""
    validation_share: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.0
    """Part of the device's training examples that it measures on (`validation_...`) and does not train on."""
    patience: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    """Epochs without a better validation loss after which training stops, with the best epoch's weights; 0: never."""


# ---- bulk, both ways ------------------------------------------------------------------------


class Chunk(_Wire, frozen=True, tag=True):
    """One piece of a blob's stream: first the head's chunks, then the body's."""

    blob: BlobId
    index: Annotated[int, msgspec.Meta(ge=0, le=2**17)]
    data: Data


class Want(_Wire, frozen=True, tag=True):
    """A receiver asks for the chunks whose bits are set. A repeat asks again for what did not come."""

    device: DeviceId
    blob: BlobId
    chunks: Bitmap


# ---- device to coordinator ------------------------------------------------------------------


class Hello(_Wire, frozen=True, tag=True):
    """I am here; `nonce` tells this connection from an earlier one of the same device."""

    device: DeviceId
    nonce: Token


class Bye(_Wire, frozen=True, tag=True):
    """I leave on purpose: do not wait for me."""

    device: DeviceId
    nonce: Token


class CheckIn(_Wire, frozen=True, tag=True):
    """I would take part in this round."""

    device: DeviceId
    round: Positive


class Accept(_Wire, frozen=True, tag=True):
    """I have the invitation and start."""

    device: DeviceId
    round: Positive


class Decline(_Wire, frozen=True, tag=True):
    """I cannot take part, though I checked in or have the invitation; the reason is a sentence."""

    device: DeviceId
    round: Positive
    reason: Text


class Failed(_Wire, frozen=True, tag=True):
    """My training of this round ended without an update; the reason is a sentence."""

    device: DeviceId
    round: Positive
    reason: Text


class Offer(_Wire, frozen=True, tag=True):
    """My update of this round is ready: update = local weights - global weights of `base`."""

    device: DeviceId
    round: Positive
    base: BlobId
    update: Ref
    num_examples: Positive
    metrics: Metrics = {}


# ---- coordinator to device ------------------------------------------------------------------


class Invite(_Wire, frozen=True, tag=True):
    """You are in this round's cohort: train `plan` from `base`."""

    device: DeviceId
    round: Positive
    base: Ref
    plan: Plan


class Receipt(_Wire, frozen=True, tag=True):
    """Your update is here, whole and admitted. Keep it until the round is over."""

    device: DeviceId
    round: Positive
    update: BlobId


class Refusal(_Wire, frozen=True, tag=True):
    """Your check-in or update does not count; the reason is a sentence."""

    device: DeviceId
    round: Positive
    reason: Text


class Takeover(_Wire, frozen=True, tag=True):
    """The connection `nonce` of your name was followed by the connection `by`: yours, or another process's."""

    device: DeviceId
    nonce: Token
    by: Token


Say: TypeAlias = Hello | Bye | CheckIn | Accept | Decline | Failed | Offer | Want
Command: TypeAlias = Invite | Receipt | Refusal | Takeover | Want


class Signed(_Wire, frozen=True, tag=True):
    """An envelope, where parties sign: `body` is the msgpack message (`common.signing`)."""

    body: Data
    signature: Signature


# ---- what people read -----------------------------------------------------------------------


class CoordinatorStatus(_Wire, frozen=True):
    """Retained, and the will with `state: offline`. A new `epoch` (one a start) asks every device for a Hello."""

    federation: DeviceId
    epoch: Token
    state: Literal["online", "offline"]
    refused: Number = 0
    """Messages dropped since the start because they broke the protocol."""
    text: Text = ""


class RoundStatus(_Wire, frozen=True):
    """Retained: the current round, or the last one that ended. `model` is the global model to hold now."""

    epoch: Token
    round: Number
    phase: Literal["idle", "selecting", "reporting", "aggregating", "committed", "abandoned"]
    model: Ref | None = None
    cohort: tuple[DeviceId, ...] = ()
    reported: tuple[DeviceId, ...] = ()
    goal: Number = 0
    minimum: Number = 0
    text: Text = ""


class ReleaseStatus(_Wire, frozen=True):
    """Retained: the TFLite model that every device is to serve."""

    release: Label
    model: Ref
    labels: tuple[Label, ...]
    round: Number
    text: Text = ""


class DeviceStatus(_Wire, frozen=True):
    """Retained, and the will with `state: offline`."""

    device: DeviceId
    nonce: Token
    state: Literal["online", "offline"]
    doing: Text = ""
    release: Annotated[str, msgspec.Meta(max_length=100)] = ""
    refused: Number = 0
    text: Text = ""
    health: Health | None = None


class StoryEvent(_Wire, frozen=True):
    """Something that happened, for a person: a kind, the numbers that go with it, one sentence."""

    event: Label
    text: Text
    round: Number = 0
    device: Annotated[str, msgspec.Meta(max_length=32)] = ""
    fraction: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    metrics: Metrics = {}


class Prediction(_Wire, frozen=True):
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
    packed: bytes = msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,)), use_bin_type=True)
    return packed


def encode_story(document: Story) -> bytes:
    """Write what people read as JSON."""
    return msgspec.json.encode(document)


def decode(payload: bytes, expected: Any) -> Any:
    """Read one of the message types `expected` (`Say`, `Command` or one struct); raises PeerError for anything else."""
    try:
        # Lengths are bounded by the payload itself, so a short bomb cannot ask for much memory.
        plain = msgpack.unpackb(payload, raw=False, strict_map_key=True, use_list=True)
        if isinstance(plain, dict):  # one struct is several times faster to convert to than a union
            expected = _BY_TYPE.get((expected, plain.get("type")), expected)
        return msgspec.convert(plain, expected)
    except (ValueError, TypeError, RecursionError, OverflowError, msgpack.UnpackException) as error:
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
