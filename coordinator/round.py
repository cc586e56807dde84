"""A round as a state machine: pure, total, and small enough to draw (`docs/architecture.md`).

Phases after Bonawitz et al., "Towards Federated Learning at Scale" (2019). Whatever this module does
not name changes nothing and commands nothing. Times are monotonic seconds.
"""

import msgspec

from common import plan as plans
from common.messages import Invite, Offer, Receipt, Ref, Refusal, clip
from common.plan import RoundPlan
from coordinator.admission import refuse_offer
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
from coordinator.options import RoundOptions
from coordinator.round_state import OPEN, SETTLED, TOLD, Member, Phase, Round, Standing, result_of
from coordinator.wording import UNTIL_CLOSE

Step = tuple[Round, tuple[Command, ...]]


def begin(plan: RoundPlan, options: RoundOptions, method: Method, now: float) -> Step:
    """Open a new round."""
    packed = plans.write(plan)
    return Round(plan=plan, packed=packed, options=options, method=method, phase_since=now), (Announce(),)


def resume(round_: Round, now: float, lost: frozenset[str] = frozenset()) -> Step:
    """Continue after a restart: waiting begins anew, since no clock survives one; what was decided stays.

    `lost` names the members whose updates a power cut took from the disk: they still hold them, and the
    round waits for them again.
    """
    members = tuple(
        msgspec.structs.replace(m, standing=Standing.INVITED) if m.device in lost else m for m in round_.members
    )
    phase = Phase.REPORTING if lost and round_.phase is Phase.AGGREGATING else round_.phase
    resumed = wait_anew(msgspec.structs.replace(round_, phase=phase, members=members), now)
    return resumed, (Announce(), Aggregate()) if phase is Phase.AGGREGATING else (Announce(),)


def wait_anew(round_: Round, now: float) -> Round:
    """Begin to wait for devices: until now they could not be heard."""
    members = tuple(msgspec.structs.replace(m, advanced_at=now) for m in round_.members)
    return msgspec.structs.replace(round_, phase_since=now, members=members)


def step(round_: Round, event: Event, now: float) -> Step:  # noqa: C901, PLR0911 - one line an event, the table itself
    """Take one event; returns the new state and what to do. Save the state before doing it."""
    match event:
        case CheckedIn(device=device, abilities=abilities):
            return _checked_in(round_, device, abilities, now)
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
        return round_.phase_since + round_.options.selection_s
    if round_.phase is not Phase.REPORTING:
        return float("inf")
    due = round_.phase_since + round_.options.deadline_s
    advancing = [m.advanced_at + round_.options.grace_s for m in round_.standing(Standing.DELIVERING)]
    return min(max([due, *advancing]), due + round_.options.deadline_s)


# ---- one function an event ------------------------------------------------------------------


def _checked_in(round_: Round, device: str, abilities: frozenset[str], now: float) -> Step:
    member = round_.member(device)
    if round_.phase is Phase.SELECTING and member is None:
        return _join(round_, device, plans.needs(round_.plan) - abilities, now)
    if member is None:
        return round_, (_refusal(round_, device, f"round {round_.number} began without this device"),)
    match member.standing:
        case Standing.REPORTED if member.update is not None:
            return round_, (_receipt(round_, device, member.update.id),)
        case Standing.REFUSED | Standing.UNABLE:
            return round_, (_refusal(round_, device, member.reason),)
    return round_, (_invitation(round_, device),) if round_.phase is Phase.REPORTING else ()


def _join(round_: Round, device: str, lacks: frozenset[str], now: float) -> Step:
    reason = f"lacks {', '.join(sorted(lacks))}; upgrade fedpi there, or name the model in its configuration"
    joined = Member(device=device, standing=Standing.JOINED)
    if lacks:
        joined = Member(device=device, standing=Standing.UNABLE, reason=clip(reason))
    members = tuple(sorted((*round_.members, joined), key=lambda m: m.device))
    round_ = msgspec.structs.replace(round_, members=members)
    if lacks:
        return round_, (_refusal(round_, device, joined.reason),)
    return _invite(round_, now) if len(round_.cohort) >= round_.options.goal else (round_, ())


def _offered(round_: Round, offer: Offer, now: float) -> Step:
    if round_.phase is Phase.SELECTING:
        return round_, ()  # a power cut took the cohort: the device checks in again and keeps its offer
    member = round_.member(offer.device)
    if (answer := _answer(round_, member, offer)) is not None:
        return round_, (answer,)
    if (refused := refuse_offer(offer, plans.digest(round_.packed), round_.base, round_.options)) is not None:
        return _refuse(round_, offer.device, refused, now)
    if member is not None and member.standing is Standing.DELIVERING and member.update == offer.update:
        return round_, (Collect(offer=offer),)  # saying it again is no progress
    assert member is not None  # noqa: S101 - else there was an answer
    is_new = offer.update.id not in member.earlier
    if (offers := member.offers + is_new) > round_.options.max_offers:
        return _refuse(round_, offer.device, f"{offers} different updates in one round are too many", now)
    round_ = _with(
        round_,
        offer.device,
        standing=Standing.DELIVERING,
        update=offer.update,
        offers=offers,
        earlier=member.earlier | {offer.update.id},
        num_examples=offer.num_examples,
        metrics=offer.metrics,
        advanced_at=now if is_new else member.advanced_at,  # going back to an earlier update is no progress
    )
    return round_, (Collect(offer=offer),)


def _answer(round_: Round, member: Member | None, offer: Offer) -> Tell | None:
    """Answer an offer that there is nothing to receive of; None for one that may count."""
    if member is None:
        reason = f"round {round_.number} began without this device"
    elif member.standing is Standing.REPORTED and member.update is not None:
        if member.update.id == offer.update.id:
            return _receipt(round_, offer.device, offer.update.id)
        reason = "another update of yours counts in this round already"
    elif round_.phase is not Phase.REPORTING:
        reason = f"round {offer.round} is closed; this update came too late"
    elif member.standing in {Standing.REFUSED, Standing.UNABLE}:
        reason = member.reason
    else:
        return None
    return _refusal(round_, offer.device, reason)


def _delivered(round_: Round, device: str, update: str, now: float) -> Step:
    member = round_.member(device)
    if round_.phase is not Phase.REPORTING or not _is_delivering(member, update):
        return round_, ()
    receipt = _receipt(round_, device, update)
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
    if len(round_.cohort) >= round_.options.minimum:
        return _invite(round_, now)
    options = round_.options
    reason = f"{len(round_.cohort)} devices checked in within {options.selection_s:g} s; {options.minimum} are needed"
    return _close(round_, Phase.ABANDONED, now, reason=reason)


# ---- transitions ----------------------------------------------------------------------------


def _invite(round_: Round, now: float) -> Step:
    members = tuple(
        m if m.standing is Standing.UNABLE else msgspec.structs.replace(m, standing=Standing.INVITED)
        for m in round_.members
    )
    round_ = msgspec.structs.replace(round_, phase=Phase.REPORTING, members=members, phase_since=now)
    return round_, (Announce(), *(_invitation(round_, m.device) for m in round_.cohort))


def _settle(round_: Round, now: float) -> Step:
    """Decide as soon as no member is left to wait for."""
    if all(m.standing in SETTLED for m in round_.members):
        return _decide(round_, now)
    return round_, ()


def _decide(round_: Round, now: float) -> Step:
    if len(round_.reported) >= round_.options.minimum:
        aggregating = msgspec.structs.replace(round_, phase=Phase.AGGREGATING, phase_since=now)
        return aggregating, (Announce(), Aggregate())
    reason = (
        f"{len(round_.reported)} of {len(round_.cohort)} invited devices reported; {round_.options.minimum} are needed"
    )
    return _close(round_, Phase.ABANDONED, now, reason=reason)


def _close(round_: Round, phase: Phase, now: float, *, result: Ref | None = None, reason: str = "") -> Step:
    # Who joined a round that never began is not missing from it.
    members = tuple(m if m.standing in {*SETTLED, Standing.JOINED} else _missing(m) for m in round_.members)
    changes = {"phase": phase, "phase_since": now, "result": result, "reason": reason, "members": members}
    closed = msgspec.structs.replace(round_, **changes)
    return closed, (*(Tell(message=result_of(closed, m)) for m in members if m.standing in TOLD), Announce())


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
    plan = round_.plan
    return Tell(message=Invite(device=device, round=plan.round, generation=plan.generation, plan=round_.packed))


def _receipt(round_: Round, device: str, update: str) -> Tell:
    plan = round_.plan
    return Tell(message=Receipt(device=device, round=plan.round, generation=plan.generation, update=update))


def _refusal(round_: Round, device: str, reason: str) -> Tell:
    plan = round_.plan
    return Tell(message=Refusal(device=device, round=plan.round, generation=plan.generation, reason=clip(reason)))
