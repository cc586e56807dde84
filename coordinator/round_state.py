"""A round: its phases, its members, what of it is kept. Pure."""

from enum import StrEnum

import msgspec

from common.messages import Metrics, Ref, Result, clip
from common.plan import RoundPlan
from coordinator.method import Method
from coordinator.options import RoundOptions


class Phase(StrEnum):
    """Where a round stands; the last two are final."""

    SELECTING = "selecting"
    REPORTING = "reporting"
    AGGREGATING = "aggregating"
    COMMITTED = "committed"
    ABANDONED = "abandoned"


class Standing(StrEnum):
    """Where a device stands in a round: what the ledger says of it."""

    JOINED = "joined"
    INVITED = "invited"
    ACCEPTED = "accepted"
    DELIVERING = "delivering"
    REPORTED = "reported"
    DECLINED = "declined"
    FAILED = "failed"
    REFUSED = "refused"
    MISSING = "missing"
    UNABLE = "unable"


SETTLED = frozenset({Standing.REPORTED, Standing.DECLINED, Standing.FAILED, Standing.REFUSED, Standing.UNABLE})
OPEN = frozenset({Phase.SELECTING, Phase.REPORTING})


class _Frozen(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Member(_Frozen, frozen=True):
    """A device in a round."""

    device: str
    standing: Standing
    update: Ref | None = None
    offers: int = 0  # of different updates
    earlier: frozenset[str] = frozenset()  # ids of those that this process heard of; the journal has their number
    num_examples: int = 0
    reason: str = ""
    metrics: Metrics = {}
    advanced_at: float = 0.0


class Round(_Frozen, frozen=True):
    """A round's whole state. `members` are sorted by device; `packed` is the plan as it travels."""

    plan: RoundPlan
    packed: bytes
    options: RoundOptions
    method: Method = Method()
    phase: Phase = Phase.SELECTING
    members: tuple[Member, ...] = ()
    phase_since: float = 0.0
    result: Ref | None = None
    reason: str = ""

    @property
    def number(self) -> int:
        """The round's number, from 1."""
        return self.plan.round

    @property
    def base(self) -> Ref:
        """The global model that it begins with."""
        return self.plan.base

    @property
    def cohort(self) -> tuple[Member, ...]:
        """Members that are invited, or would be now: all but those that lack an ability."""
        return tuple(m for m in self.members if m.standing is not Standing.UNABLE)

    def member(self, device: str) -> Member | None:
        """Return the member with that id."""
        return next((m for m in self.members if m.device == device), None)

    def standing(self, *which: Standing) -> tuple[Member, ...]:
        """Return the members that stand so."""
        return tuple(m for m in self.members if m.standing in which)

    @property
    def reported(self) -> tuple[Member, ...]:
        """Members whose updates count."""
        return self.standing(Standing.REPORTED)


TOLD = frozenset({Standing.REPORTED, Standing.DECLINED, Standing.FAILED, Standing.REFUSED, Standing.MISSING})


def result_of(round_: Round, member: Member) -> Result:
    """Tell a member of a round that is over whether its update is part of the new global model."""
    counted = round_.phase is Phase.COMMITTED and member.standing is Standing.REPORTED
    reason = member.reason
    if member.standing is Standing.REPORTED and not counted:
        reason = f"the round is void: {round_.reason}"
    return Result(
        device=member.device,
        round=round_.number,
        generation=round_.plan.generation,
        counted=counted,
        reason=clip(reason or member.standing.value) if not counted else "",
    )
