"""What can happen to a round (past tense), and what its state machine commands (imperative)."""

import msgspec

from common.messages import Invite, Offer, Receipt, Ref, Refusal, Result


class _Frozen(msgspec.Struct, frozen=True, kw_only=True):
    pass


class CheckedIn(_Frozen, frozen=True):
    """A device would take part, or asks where it stands; `abilities` are those that its Hello named."""

    device: str
    abilities: frozenset[str] = frozenset()


class Left(_Frozen, frozen=True):
    """A device said goodbye."""

    device: str


class Accepted(_Frozen, frozen=True):
    """A device has its invitation."""

    device: str


class Declined(_Frozen, frozen=True):
    """A device cannot take part."""

    device: str
    reason: str


class Failed(_Frozen, frozen=True):
    """A device's training ended without an update."""

    device: str
    reason: str


class Offered(_Frozen, frozen=True):
    """A device offers an update."""

    offer: Offer


class Advanced(_Frozen, frozen=True):
    """New bytes of a device's update came."""

    device: str


class Delivered(_Frozen, frozen=True):
    """A device's update is here, whole, durable and admitted."""

    device: str
    update: str


class Rejected(_Frozen, frozen=True):
    """A device's update came and is not admitted."""

    device: str
    update: str
    reason: str


class Tick(_Frozen, frozen=True):
    """Time passed."""


class Aggregated(_Frozen, frozen=True):
    """The new global model is durable, and what the strategy remembers of it."""

    result: Ref
    moments: Ref | None = None


class Cancelled(_Frozen, frozen=True):
    """The operator stops the round, or it cannot be finished."""

    reason: str


Event = (
    CheckedIn
    | Left
    | Accepted
    | Declined
    | Failed
    | Offered
    | Advanced
    | Delivered
    | Rejected
    | Tick
    | Aggregated
    | Cancelled
)

# ---- commands -------------------------------------------------------------------------------


class Tell(_Frozen, frozen=True):
    """Send a command to its device."""

    message: Invite | Receipt | Refusal | Result


class Collect(_Frozen, frozen=True):
    """Receive the update that a device offers."""

    offer: Offer


class Announce(_Frozen, frozen=True):
    """Publish where the round stands."""


class Aggregate(_Frozen, frozen=True):
    """Compute the new global model from the members that reported."""


Command = Tell | Collect | Announce | Aggregate
