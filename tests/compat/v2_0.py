"""Protocol 2.0 as it was sent and read by the first version that spoke it. NEVER EDIT THIS FILE.

It stands for devices and coordinators that are in the field: `test_compat.py` holds what this version sends and reads
against it. What it refuses they refuse, so mend the change and not the copy. It imports nothing of fedpi, so that no
change there changes it.
"""

from functools import cache
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgpack
import msgspec

NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?\Z"


class PeerError(Exception):
    pass


MALFORMED = (ValueError, TypeError, RecursionError, OverflowError, msgpack.UnpackException)


class Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


def pack(message: Wire) -> bytes:
    packed: bytes = msgpack.packb(plain(message), use_bin_type=True)
    return packed


def plain(message: Wire) -> dict[str, Any]:
    return sparse(message, msgspec.to_builtins(message, builtin_types=(bytes,)))


def unpack(packed: bytes, expected: Any) -> Any:
    try:
        return convert(msgpack.unpackb(packed, raw=False, strict_map_key=True, use_list=True), expected)
    except MALFORMED as error:
        raise PeerError(f"not a valid message: {str(error)[:200]}") from error


def convert(unpacked: Any, expected: Any) -> Any:
    return msgspec.convert(unpacked, expected, builtin_types=(bytes,))


@cache
def _defaults(kind: Any) -> dict[str, Any]:
    found = {}
    for field in msgspec.structs.fields(kind):
        if not field.required:
            value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            found[field.name] = msgspec.to_builtins(value)
    return found


def sparse(part: Any, values: dict[str, Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = _defaults(part.__class__)
    for name in part.__struct_fields__:
        if isinstance((inner := getattr(part, name)), Wire):
            values[name] = sparse(inner, values.get(name, {}))
        if name in defaults and name in values and (values[name] == defaults[name]):
            del values[name]
    return values


DeviceId = Annotated[str, msgspec.Meta(pattern=NAME_PATTERN, max_length=32)]
BlobId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}\\Z", max_length=64)]
Token = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{1,32}\\Z", max_length=32)]
Text = Annotated[str, msgspec.Meta(max_length=500)]
Label = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
FIGURE_MAX = 1e30
Figure = Annotated[float, msgspec.Meta(ge=-FIGURE_MAX, le=FIGURE_MAX)]
Ability = Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
Abilities = Annotated[tuple[Ability, ...], msgspec.Meta(max_length=64)]
MAX_METRICS = 64
Metrics = Annotated[dict[Label, Figure], msgspec.Meta(max_length=MAX_METRICS)]
Signature = Annotated[str, msgspec.Meta(max_length=200)]
Options = Annotated[dict[Label, Any], msgspec.Meta(max_length=64)]
Data = Annotated[bytes, msgspec.Meta(max_length=2**18)]
Bitmap = Annotated[bytes, msgspec.Meta(max_length=2**14)]


class Ref(Wire, frozen=True):
    id: BlobId
    head_bytes: Annotated[int, msgspec.Meta(ge=1, le=2**23)]
    size: Annotated[int, msgspec.Meta(ge=0, le=2**34)]
    chunk_bytes: Annotated[int, msgspec.Meta(ge=2**12, le=2**18)]


class Chunk(Wire, frozen=True, tag=True):
    blob: BlobId
    index: Annotated[int, msgspec.Meta(ge=0, le=2**17)]
    data: Data


class Want(Wire, frozen=True, tag=True):
    device: DeviceId
    blob: BlobId
    chunks: Bitmap


class Hello(Wire, frozen=True, tag=True):
    device: DeviceId
    nonce: Token
    epoch: Token = "0"
    abilities: Abilities = ()


class Bye(Wire, frozen=True, tag=True):
    device: DeviceId
    nonce: Token


class CheckIn(Wire, frozen=True, tag=True):
    device: DeviceId
    round: Positive
    generation: Token


class Accept(Wire, frozen=True, tag=True):
    device: DeviceId
    round: Positive
    generation: Token


class Decline(Wire, frozen=True, tag=True):
    device: DeviceId
    round: Positive
    generation: Token
    reason: Text


class Failed(Wire, frozen=True, tag=True):
    device: DeviceId
    round: Positive
    generation: Token
    reason: Text


class Offer(Wire, frozen=True, tag=True):
    device: DeviceId
    round: Positive
    generation: Token
    plan: BlobId
    update: Ref
    num_examples: Positive
    metrics: Metrics = {}


class Invite(Wire, frozen=True, tag=True):
    device: DeviceId
    round: Positive
    generation: Token
    plan: Annotated[bytes, msgspec.Meta(max_length=2**16)]


class Receipt(Wire, frozen=True, tag=True):
    device: DeviceId
    round: Positive
    generation: Token
    update: BlobId


class Refusal(Wire, frozen=True, tag=True):
    device: DeviceId
    round: Positive
    generation: Token
    reason: Text


class Result(Wire, frozen=True, tag=True):
    device: DeviceId
    round: Positive
    generation: Token
    counted: bool
    reason: Text = ""


class Takeover(Wire, frozen=True, tag=True):
    device: DeviceId
    nonce: Token
    by: Token


Say: TypeAlias = Hello | Bye | CheckIn | Accept | Decline | Failed | Offer | Want
Command: TypeAlias = Invite | Receipt | Refusal | Result | Takeover | Want


class Signed(Wire, frozen=True, tag=True):
    body: Data
    signature: Signature


_BY_TYPE: dict[tuple[Any, Any], Any] = {
    (union, kind.__name__): kind for union in (Say, Command) for kind in get_args(union)
}


def encode(message: Chunk | Say | Command | Signed) -> bytes:
    return pack(message)


def decode(payload: bytes, expected: Any) -> Any:
    try:
        plain = msgpack.unpackb(payload, raw=False, strict_map_key=True, use_list=True)
        if isinstance(plain, dict):
            expected = _BY_TYPE.get((expected, plain.get("type")), expected)
        return convert(plain, expected)
    except MALFORMED as error:
        raise PeerError(f"not a valid message: {str(error)[:200]}") from error


Stage: TypeAlias = Literal["starting", "taking-over", "running"]


class Probe(Wire, frozen=True, tag=True):
    process: Token
    nonce: Token


class Alive(Wire, frozen=True, tag=True):
    process: Token
    nonce: Token
    stage: Stage


Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Epochs = Annotated[int, msgspec.Meta(ge=0, le=10000)]
BatchSize = Annotated[int, msgspec.Meta(ge=1, le=65536)]
LearningRate = Annotated[float, msgspec.Meta(gt=0, le=100)]
BASE_MODELS = frozenset({"extra_dense_cnn", "mobilenet_v2", "numpy", "simple_cnn"})


class Training(Wire, frozen=True):
    epochs: Epochs = 2
    steps: Annotated[int, msgspec.Meta(ge=0, le=1000000)] = 0
    batch_size: BatchSize = 16
    learning_rate: LearningRate = 0.0005
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32)] = 0
    evaluate: bool = True
    proximal_mu: Annotated[float, msgspec.Meta(ge=0, le=1000000.0)] = 0.0
    clip_norm: Annotated[float, msgspec.Meta(ge=0, le=1000000000.0)] = 0.0
    class_weights: bool = False
    batch_norm: Literal["model", "frozen", "averaged", "local"] = "model"
    personal: Annotated[tuple[Pattern, ...], msgspec.Meta(max_length=64)] = ()
    validation_share: Annotated[float, msgspec.Meta(ge=0, le=0.9)] = 0.0
    patience: Epochs = 0


class ModelChoice(Wire, frozen=True):
    name: Label
    options: Options = {}

    def __post_init__(self) -> None:
        msgspec.json.encode(self.options)


class RoundPlan(Wire, frozen=True):
    round: Positive
    generation: Token
    base: Ref
    model: ModelChoice
    labels: Annotated[tuple[Label, ...], msgspec.Meta(min_length=2, max_length=1000)] = ("no", "yes")
    training: Training = Training()
    deadline_s: Annotated[float, msgspec.Meta(gt=0, le=10000000.0)] = 900.0


def write(plan: RoundPlan) -> bytes:
    return pack(plan)


def read(packed: bytes) -> RoundPlan:
    plan: RoundPlan = unpack(packed, RoundPlan)
    return plan


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Dimension = Annotated[int, msgspec.Meta(ge=0, le=2**31)]


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    shape: Annotated[tuple[Dimension, ...], msgspec.Meta(max_length=8)]
    dtype: Name


Spec: TypeAlias = tuple[TensorSpec, ...]
DIGEST_BYTES = 32
MAX_CHUNKS = 65536


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: Annotated[int, msgspec.Meta(ge=0, le=2**34)]
    chunk_bytes: Annotated[int, msgspec.Meta(ge=2**12, le=2**18)]
    digests: Annotated[bytes, msgspec.Meta(max_length=DIGEST_BYTES * MAX_CHUNKS)]
    spec: Spec | None = None


TOPICS = {
    "coord/status": "fedpi/2/{federation}/coord/status",
    "coord/round": "fedpi/2/{federation}/coord/round",
    "coord/release": "fedpi/2/{federation}/coord/release",
    "coord/event": "fedpi/2/{federation}/coord/event",
    "coord/members": "fedpi/2/{federation}/coord/members",
    "coord/rounds": "fedpi/2/{federation}/coord/rounds",
    "dev/status": "fedpi/2/{federation}/dev/{device}/status",
    "dev/event": "fedpi/2/{federation}/dev/{device}/event",
    "dev/prediction": "fedpi/2/{federation}/dev/{device}/prediction",
    "coord/peer": "fedpi-wire/2/{federation}/coord/peer",
    "blob": "fedpi-wire/2/{federation}/blob/{blob}",
    "dev/up": "fedpi-wire/2/{federation}/dev/{device}/up",
    "dev/say": "fedpi-wire/2/{federation}/dev/{device}/say",
    "dev/cmd": "fedpi-wire/2/{federation}/dev/{device}/cmd",
    "dev/infer": "fedpi-wire/2/{federation}/dev/{device}/infer",
}
