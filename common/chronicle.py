"""What onlookers are told of rounds: the open one device by device, and the last ones. No device reads it. Pure."""

from typing import Annotated, Literal

import msgspec

from common.messages import DeviceId, Metrics, Number, Seconds, Text

MAX_MEMBERS = 1000
MAX_ROUNDS = 100


class _Told(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class MemberProgress(_Told, frozen=True):
    """A device's part in the open round. `seconds` run from its invitation until it is settled."""

    device: DeviceId
    standing: Literal[
        "joined", "invited", "accepted", "delivering", "reported", "declined", "failed", "refused", "missing", "unable"
    ]
    examples: Number = 0
    update_bytes: Number = 0
    received_bytes: Number = 0
    seconds: Seconds = 0.0


class RoundMembers(_Told, frozen=True):
    """Retained: how far every device of a round is. `hidden` devices found no room in a packet."""

    round: Number
    members: Annotated[tuple[MemberProgress, ...], msgspec.Meta(max_length=MAX_MEMBERS)] = ()
    hidden: Number = 0
    text: Text = ""


class PastRound(_Told, frozen=True):
    """A round that is over; `closed` is Unix time."""

    round: Number
    phase: Literal["committed", "abandoned"]
    invited: Number
    reported: Number
    closed: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    seconds: Seconds
    bytes_down: Number = 0
    bytes_up: Number = 0
    metrics: Metrics = {}
    reason: Text = ""


class PastRounds(_Told, frozen=True):
    """Retained: the last rounds that are over, oldest first."""

    rounds: Annotated[tuple[PastRound, ...], msgspec.Meta(max_length=MAX_ROUNDS)] = ()
    text: Text = ""
