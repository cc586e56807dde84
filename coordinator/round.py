"""A round as a state machine: pure, total, and small enough to draw (`docs/architecture.md`).

Phases after Bonawitz et al., "Towards Federated Learning at Scale" (2019). Whatever this module does
not name changes nothing and commands nothing. Times are monotonic seconds.
"""

from enum import StrEnum

import msgspec

from common.messages import Invite, Metrics, Offer, Plan, Receipt, Ref, Refusal, clip
from coordinator.admission import Limits, refuse_offer
from coordinator.events import (
    Accepted,
    Advanced,
    Aggregate,
    Aggregated,
    Announce,
    Cancelled,
    CheckedIn,
    Collect,
    Command,
    Declined,
    Delivered,
    Event,
    Failed,
    Left,
    Offered,
    Rejected,
    Tell,
    Tick,
)
from coordinator.method import Method
from coordinator.wording import UNTIL_CLOSE


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


SETTLED = frozenset({Standing.REPORTED, Standing.DECLINED, Standing.FAILED, Standing.REFUSED})
OPEN = frozenset({Phase.SELECTING, Phase.REPORTING})


class _Frozen(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Rules(_Frozen, frozen=True):
    """How many devices a round wants and needs, and how long it waits (seconds)."""

    goal: int
    minimum: int
    selection_s: float
    deadline_s: float
    grace_s: float = 30.0
    """A device whose upload advanced within this time holds the round open past its deadline, at most once as long."""


class Member(_Frozen, frozen=True):
    """A device in a round."""

    device: str
    standing: Standing
    update: Ref | None = None
    offers: int = 0  # of different updates, one after the other
    num_examples: int = 0
    reason: str = ""
    metrics: Metrics = {}
    advanced_at: float = 0.0


class Round(_Frozen, frozen=True):
    """A round's whole state. `members` are sorted by device."""

    number: int
    base: Ref
    plan: Plan
    rules: Rules
    limits: Limits
    method: Method = Method()
    phase: Phase = Phase.SELECTING
    members: tuple[Member, ...] = ()
    phase_since: float = 0.0
    result: Ref | None = None
    reason: str = ""

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


Step = tuple[Round, tuple[Command, ...]]


def begin(round_: Round, now: float) -> Step:
    """Open a new round."""
    return msgspec.structs.replace(round_, phase_since=now), (Announce(),)


def resume(round_: Round, now: float, lost: frozenset[str] = frozenset()) -> Step:
    """Continue after a restart: waiting begins anew, since no clock survives one; what was decided stays.

    `lost` names the members whose updates a power cut took from the disk: they still hold them, and the
    round waits for them again.
    """
    members = tuple(
        msgspec.structs.replace(m, advanced_at=now, standing=Standing.INVITED if m.device in lost else m.standing)
        for m in round_.members
    )
    phase = Phase.REPORTING if lost and round_.phase is Phase.AGGREGATING else round_.phase
    resumed = msgspec.structs.replace(round_, phase=phase, phase_since=now, members=members)
    return resumed, (Announce(), Aggregate()) if phase is Phase.AGGREGATING else (Announce(),)


def step(round_: Round, event: Event, now: float) -> Step:  # noqa: C901, PLR0911 - one line an event, the table itself
    """Take one event; returns the new state and what to do. Save the state before doing it."""
    match event:
        case CheckedIn(device=device):
            return _checked_in(round_, device, now)
        case Left(device=device) | Declined(device=device) if round_.phase is Phase.SELECTING:
            members = tuple(m for m in round_.members if m.device != device)
            return msgspec.structs.replace(round_, members=members), ()
        case Accepted(device=device):
            return _move(round_, device, {Standing.INVITED}, now, standing=Standing.ACCEPTED)
        case Declined(device=device, reason=reason):
            return _move(round_, device, _WAITING, now, standing=Standing.DECLINED, reason=reason)
        case Failed(device=device, reason=reason):
            return _move(round_, device, _WAITING, now, standing=Standing.FAILED, reason=reason)
        case Offered(offer=offer):
            return _offered(round_, offer, now)
        case Advanced(device=device):
            return _move(round_, device, {Standing.DELIVERING}, now, advanced_at=now)
        case Delivered(device=device, update=update):
            return _delivered(round_, device, update, now)
        case Rejected(device=device, update=update, reason=reason):
            return _rejected(round_, device, update, reason, now)
        case Tick():
            return _ticked(round_, now)
        case Aggregated(result=result, moments=moments) if round_.phase is Phase.AGGREGATING:
            method = msgspec.structs.replace(round_.method, next_moments=moments)
            return _close(msgspec.structs.replace(round_, method=method), Phase.COMMITTED, now, result=result)
        case Cancelled(reason=reason) if round_.phase in {*OPEN, Phase.AGGREGATING}:
            return _close(round_, Phase.ABANDONED, now, reason=reason)
    return round_, ()


_WAITING = frozenset({Standing.INVITED, Standing.ACCEPTED, Standing.DELIVERING})


def deadline(round_: Round) -> float:
    """When the phase ends unless it is over before: monotonic seconds."""
    if round_.phase is Phase.SELECTING:
        return round_.phase_since + round_.rules.selection_s
    if round_.phase is not Phase.REPORTING:
        return float("inf")
    due = round_.phase_since + round_.rules.deadline_s
    advancing = [m.advanced_at + round_.rules.grace_s for m in round_.standing(Standing.DELIVERING)]
    return min(max([due, *advancing]), due + round_.rules.deadline_s)


# ---- one function an event ------------------------------------------------------------------


def _checked_in(round_: Round, device: str, now: float) -> Step:
    member = round_.member(device)
    if round_.phase is Phase.SELECTING and member is None:
        joined = Member(device=device, standing=Standing.JOINED)
        members = tuple(sorted((*round_.members, joined), key=lambda m: m.device))
        round_ = msgspec.structs.replace(round_, members=members)
        return _invite(round_, now) if len(members) >= round_.rules.goal else (round_, ())
    if round_.phase is not Phase.REPORTING or member is None:
        return round_, ()
    if member.standing is Standing.REPORTED and member.update is not None:
        return round_, (Tell(message=Receipt(device=device, round=round_.number, update=member.update.id)),)
    if member.standing is Standing.REFUSED:
        return round_, (_refusal(round_, device, member.reason),)
    return round_, (_invitation(round_, device),)


def _offered(round_: Round, offer: Offer, now: float) -> Step:
    if offer.round == round_.number and round_.phase is Phase.SELECTING:
        return round_, ()  # a power cut took the cohort: the device checks in again and keeps its offer
    member = round_.member(offer.device)
    if (answer := _answer(round_, member, offer)) is not None:
        return round_, (answer,)
    if (refused := refuse_offer(offer, round_.base, round_.limits)) is not None:
        return _refuse(round_, offer.device, refused, now)
    if member is not None and member.standing is Standing.DELIVERING and member.update == offer.update:
        return round_, (Collect(offer=offer),)  # saying it again is no progress
    if (offers := 1 + (member.offers if member is not None else 0)) > round_.limits.max_offers:
        return _refuse(round_, offer.device, f"{offers} different updates in one round are too many", now)
    round_ = _with(
        round_,
        offer.device,
        standing=Standing.DELIVERING,
        update=offer.update,
        offers=offers,
        num_examples=offer.num_examples,
        metrics=offer.metrics,
        advanced_at=now,
    )
    return round_, (Collect(offer=offer),)


def _answer(round_: Round, member: Member | None, offer: Offer) -> Tell | None:
    """Answer an offer that there is nothing to receive of; None for one that may count."""
    if offer.round != round_.number or member is None:
        reason = f"round {offer.round} is not open for you; the current round is {round_.number}"
    elif member.standing is Standing.REPORTED and member.update is not None:
        if member.update.id == offer.update.id:
            return Tell(message=Receipt(device=offer.device, round=offer.round, update=offer.update.id))
        reason = "another update of yours counts in this round already"
    elif round_.phase is not Phase.REPORTING:
        reason = f"round {offer.round} is closed; this update came too late"
    elif member.standing is Standing.REFUSED:
        reason = member.reason
    else:
        return None
    return _refusal(round_, offer.device, reason, offer.round)


def _delivered(round_: Round, device: str, update: str, now: float) -> Step:
    member = round_.member(device)
    if round_.phase is not Phase.REPORTING or not _is_delivering(member, update):
        return round_, ()
    receipt = Tell(message=Receipt(device=device, round=round_.number, update=update))
    round_, more = _settle(_with(round_, device, standing=Standing.REPORTED), now)
    return round_, (receipt, *more)


def _rejected(round_: Round, device: str, update: str, reason: str, now: float) -> Step:
    if round_.phase is not Phase.REPORTING or not _is_delivering(round_.member(device), update):
        return round_, ()
    return _refuse(round_, device, reason, now)


def _is_delivering(member: Member | None, update: str) -> bool:
    return (
        member is not None
        and member.standing is Standing.DELIVERING
        and member.update is not None
        and member.update.id == update
    )


def _refuse(round_: Round, device: str, reason: str, now: float) -> Step:
    round_, more = _settle(_with(round_, device, standing=Standing.REFUSED, reason=clip(reason)), now)
    return round_, (_refusal(round_, device, reason), *more)


def _ticked(round_: Round, now: float) -> Step:
    if now < deadline(round_):
        return round_, ()
    if round_.phase is Phase.REPORTING:
        return _decide(round_, now)
    if len(round_.members) >= round_.rules.minimum:
        return _invite(round_, now)
    rules = round_.rules
    reason = f"{len(round_.members)} devices checked in within {rules.selection_s:g} s; {rules.minimum} are needed"
    return _close(round_, Phase.ABANDONED, now, reason=reason)


# ---- transitions ----------------------------------------------------------------------------


def _invite(round_: Round, now: float) -> Step:
    members = tuple(msgspec.structs.replace(m, standing=Standing.INVITED) for m in round_.members)
    round_ = msgspec.structs.replace(round_, phase=Phase.REPORTING, members=members, phase_since=now)
    return round_, (Announce(), *(_invitation(round_, m.device) for m in members))


def _settle(round_: Round, now: float) -> Step:
    """Decide as soon as no member is left to wait for."""
    if all(m.standing in SETTLED for m in round_.members):
        return _decide(round_, now)
    return round_, ()


def _decide(round_: Round, now: float) -> Step:
    if len(round_.reported) >= round_.rules.minimum:
        aggregating = msgspec.structs.replace(round_, phase=Phase.AGGREGATING, phase_since=now)
        return aggregating, (Announce(), Aggregate())
    reason = (
        f"{len(round_.reported)} of {len(round_.members)} invited devices reported; {round_.rules.minimum} are needed"
    )
    return _close(round_, Phase.ABANDONED, now, reason=reason)


def _close(round_: Round, phase: Phase, now: float, *, result: Ref | None = None, reason: str = "") -> Step:
    # Who joined a round that never began is not missing from it.
    members = tuple(m if m.standing in {*SETTLED, Standing.JOINED} else _missing(m) for m in round_.members)
    changes = {"phase": phase, "phase_since": now, "result": result, "reason": reason, "members": members}
    return msgspec.structs.replace(round_, **changes), (Announce(),)


def _missing(member: Member) -> Member:
    return msgspec.structs.replace(member, standing=Standing.MISSING, reason=UNTIL_CLOSE[member.standing])


def _move(
    round_: Round, device: str, allowed: frozenset[Standing] | set[Standing], now: float, **change: object
) -> Step:
    member = round_.member(device)
    if round_.phase is not Phase.REPORTING or member is None or member.standing not in allowed:
        return round_, ()
    return _settle(_with(round_, device, **change), now)


def _with(round_: Round, device: str, **change: object) -> Round:
    members = tuple(msgspec.structs.replace(m, **change) if m.device == device else m for m in round_.members)
    return msgspec.structs.replace(round_, members=members)


def _invitation(round_: Round, device: str) -> Tell:
    return Tell(message=Invite(device=device, round=round_.number, base=round_.base, plan=round_.plan))


def _refusal(round_: Round, device: str, reason: str, number: int | None = None) -> Tell:
    return Tell(message=Refusal(device=device, round=number or round_.number, reason=clip(reason)))
