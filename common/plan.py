"""What a round asks of a device: every option of a training and of a plan is declared here, once.

Configuration, wire, journal, offline commands and the tables of the documents take options, ranges and defaults from
`Training` and `RoundPlan`. A plan travels, and is kept, as the bytes that the coordinator wrote: their SHA-256 stands
in every offer, so an update can only count for the plan that it was trained by. Pure.
"""

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

from common.errors import PeerError
from common.messages import Label, Options, Positive, Ref, Token
from common.packing import Wire, pack, plain, unpack

Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Epochs = Annotated[int, msgspec.Meta(ge=0, le=10_000)]
BatchSize = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
LearningRate = Annotated[float, msgspec.Meta(gt=0, le=100)]
BASE_MODELS = frozenset({"extra_dense_cnn", "mobilenet_v2", "numpy", "simple_cnn"})
"""Models that every device of version 2.0 knows."""
NEWER_OPTIONS: dict[str, str] = {}
"""Options of Training or RoundPlan that version 2.0 lacks, and the ability that a device needs for each."""


class Training(Wire, frozen=True):
    """Options of a local training: epochs over the device's examples, with Adam unless the model says otherwise."""

    epochs: Epochs = 2
    steps: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    """Local steps of the optimizer in place of epochs; 0: `epochs` counts."""
    batch_size: BatchSize = 16
    learning_rate: LearningRate = 5e-4
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**32)] = 0
    """Of shuffling and augmentation. A round adds its number, a device its name."""
    evaluate: bool = True
    """Whether a device first measures the global model on the part of its data that it never trains on."""
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
    patience: Epochs = 0
    """Epochs without a better validation loss after which training stops, with the best epoch's weights; 0: never."""


class ModelChoice(Wire, frozen=True):
    """Which model to build: a name from the device's registry, and that model's options."""

    name: Label
    options: Options = {}  # noqa: RUF012 - msgspec copies defaults

    def __post_init__(self) -> None:
        """Refuse options that JSON cannot carry to the training process: msgpack knows more types."""
        msgspec.json.encode(self.options)


class RoundPlan(Wire, frozen=True):
    """What the devices of a round train, from which global model, and what its labels are called."""

    round: Positive
    generation: Token
    """Drawn by the start of the coordinator that opened the round."""
    base: Ref
    """The global model to start from."""
    model: ModelChoice
    labels: Annotated[tuple[Label, ...], msgspec.Meta(min_length=2, max_length=1000)] = ("no", "yes")
    """In the order of their numbers: with two of them the negative one first."""
    training: Training = Training()
    deadline_s: Annotated[float, msgspec.Meta(gt=0, le=1e7)] = 900.0
    """Seconds that a training may take."""


def write(plan: RoundPlan) -> bytes:
    """Write a plan as the msgpack map that an invitation carries."""
    return pack(plan)


def read(packed: bytes) -> RoundPlan:
    """Read what an invitation carries; raises PeerError for anything else."""
    plan: RoundPlan = unpack(packed, RoundPlan)
    return plan


def digest(packed: bytes) -> str:
    """Return the SHA-256 of a plan's bytes in hexadecimal digits, which an offer names."""
    return hashlib.sha256(packed).hexdigest()


def needs(plan: RoundPlan) -> frozenset[str]:
    """Return the abilities beyond version 2.0 that a device needs for `plan`."""
    asked = {f"model:{plan.model.name}"} if plan.model.name not in BASE_MODELS else set()
    given = {**plain(plan.training), **plain(plan)}
    return frozenset(asked | {ability for name, ability in NEWER_OPTIONS.items() if name in given})


def abilities(own_models: Iterable[str]) -> tuple[str, ...]:
    """Return what this version can do beyond 2.0, on a device that knows `own_models` besides the built-in ones."""
    return tuple(sorted({*NEWER_OPTIONS.values(), *(f"model:{name}" for name in own_models)}))


def check_labels(plan: RoundPlan, own: tuple[str, ...]) -> None:
    """Compare the labels and their order with those of a device's data; raises PeerError with the difference."""
    if plan.labels != own:
        raise PeerError(
            f"the labels here are {', '.join(own)}, the round's are {', '.join(plan.labels)}, in this order; correct"
            " data.label_names here or at the coordinator"
        )
