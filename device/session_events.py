"""What can happen to a device's session (past tense), and what it commands (imperative)."""

from dataclasses import dataclass, field

from common.messages import Accept, CheckIn, Decline, Failed, Offer, Ref, Result, RoundStatus
from common.plan import RoundPlan

Said = CheckIn | Accept | Decline | Failed | Offer

# ---- events ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pointed:
    """The coordinator told where the round stands."""

    status: RoundStatus


@dataclass(frozen=True)
class Invited:
    """The device is in the cohort of the round that has this plan; `digest` is the SHA-256 of its bytes."""

    plan: RoundPlan
    digest: str


@dataclass(frozen=True)
class Fetched:
    """A blob is here, complete."""

    blob: str


@dataclass(frozen=True)
class Trained:
    """The update is on disk, durable."""

    offer: Offer


@dataclass(frozen=True)
class TrainingFailed:
    """The job of a round ended without an update."""

    round: int
    reason: str


@dataclass(frozen=True)
class Wanted:
    """The coordinator asks for chunks of the update."""

    blob: str


@dataclass(frozen=True)
class Receipted:
    """The coordinator has the update."""

    round: int
    generation: str


@dataclass(frozen=True)
class WasRefused:
    """The coordinator does not want the check-in or the update."""

    round: int
    generation: str
    reason: str


@dataclass(frozen=True)
class WasResolved:
    """A round is over, and the coordinator tells whether the update counts in it."""

    result: Result


@dataclass(frozen=True)
class Examined:
    """The device's health was read; `unfitness` says why it should sit rounds out, nothing where it is fit."""

    unfitness: str


@dataclass(frozen=True)
class Reconnected:
    """The connection, or the coordinator behind it, is new: what was said last may be lost."""


@dataclass(frozen=True)
class Tick:
    """Time passed."""


Event = (
    Pointed
    | Invited
    | Fetched
    | Trained
    | TrainingFailed
    | Wanted
    | Receipted
    | WasRefused
    | WasResolved
    | Examined
    | Reconnected
    | Tick
)

# ---- commands -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speak:
    """Send a message to the coordinator. `is_repeat`: no answer came to it, maybe because the Hello before was lost."""

    message: Said
    is_repeat: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Fetch:
    """Get a blob, or say at once that it is here."""

    ref: Ref


@dataclass(frozen=True)
class StartJob:
    """Train by a plan, whose digest the offer of the update will name."""

    plan: RoundPlan
    digest: str


@dataclass(frozen=True)
class CancelJob:
    """End the training of a round that is over."""


@dataclass(frozen=True)
class DropUpdate:
    """Delete the update: its round is over."""


Command = Speak | Fetch | StartJob | CancelJob | DropUpdate
