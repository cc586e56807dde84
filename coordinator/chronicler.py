"""Rounds told to onlookers: how far every device is, how the last rounds went. Pure. Times are monotonic seconds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from msgspec.structs import replace

from common.chronicle import MAX_MEMBERS, MemberProgress, PastRound, PastRounds, RoundMembers
from common.messages import Metrics, clip
from coordinator.round_state import SETTLED, Member, Phase, Round, Standing
from coordinator.store import RoundRow
from coordinator.wording import telling

LAST_ROUNDS = 20
FIGURES = 4
"""Metrics of a past round that are told: the whole lot is in the journal."""
_DONE = SETTLED | {Standing.MISSING}
_FIRST = (Standing.DELIVERING, Standing.ACCEPTED, Standing.INVITED)


@dataclass(frozen=True)
class Stopwatch:
    """When the devices of round `number` were invited, and after how many seconds each was settled."""

    number: int = 0
    invited_at: float | None = None
    settled: Mapping[str, float] = field(default_factory=dict)


def clock(watch: Stopwatch, round_: Round, now: float) -> Stopwatch:
    """Look at the watch: note who is settled since the last time."""
    if watch.number != round_.number:
        watch = Stopwatch(round_.number)
    if round_.phase is Phase.SELECTING:
        return Stopwatch(round_.number)
    began = watch.invited_at
    if began is None:
        began = round_.phase_since if round_.phase is Phase.REPORTING else now
    settled = {m.device: watch.settled.get(m.device, now - began) for m in round_.members if m.standing in _DONE}
    return Stopwatch(round_.number, began, settled)


def members(round_: Round, received: Mapping[str, int], watch: Stopwatch, now: float) -> RoundMembers:
    """Tell how far every device is; `received` has the bytes that came of the updates on their way."""
    told = sorted(round_.members, key=lambda m: (m.standing not in _FIRST, m.device))
    since = 0.0 if watch.invited_at is None else now - watch.invited_at
    progress = [_progress(m, received.get(m.device, 0), watch.settled.get(m.device, since)) for m in told]
    done = sum(m.standing in _DONE for m in told)
    return RoundMembers(
        round=round_.number,
        members=tuple(progress[:MAX_MEMBERS]),
        hidden=len(told[MAX_MEMBERS:]),
        text=f"Round {round_.number}: {done} of {len(told)} devices are done.",
    )


def _progress(member: Member, received: int, seconds: float) -> MemberProgress:
    size = member.update.size if member.update else 0
    return MemberProgress(
        device=member.device,
        standing=member.standing.value,
        examples=member.num_examples,
        update_bytes=size,
        received_bytes=size if member.standing is Standing.REPORTED else received,
        seconds=round(seconds, 1),
    )


def past(rows: Sequence[RoundRow], before: Sequence[PastRound] = ()) -> PastRounds:
    """Tell how rounds went that are over, the last LAST_ROUNDS of them; those told `before` are older."""
    last = (*before, *(_past(row) for row in rows if row.closed is not None))[-LAST_ROUNDS:]
    committed = sum(row.phase == "committed" for row in last)
    return PastRounds(rounds=last, text=f"Of the last {len(last)} rounds {committed} were committed.")


def _past(row: RoundRow) -> PastRound:
    return PastRound(
        round=row.round,
        phase="committed" if row.phase == Phase.COMMITTED else "abandoned",
        invited=len(row.invited),
        reported=len(row.reported),
        closed=round(row.closed or 0.0, 1),
        seconds=round(max(row.seconds, 0.0), 2),
        bytes_down=row.bytes_down,
        bytes_up=row.bytes_up,
        metrics=_short(row.metrics),
        reason=clip(row.reason, 200),
    )


def _short(metrics: Metrics) -> Metrics:
    return {name: float(f"{metrics[name]:.4g}") for name in telling(metrics)[:FIGURES]}


def fitting(document: RoundMembers | PastRounds, most_bytes: int | None) -> bytes:
    """Write a document as JSON of at most `most_bytes`: devices are hidden, the oldest rounds left out as needed."""
    while len(written := msgspec.json.encode(document)) > (most_bytes or len(written)):
        shorter = _shorter(document)
        if shorter == document:
            break
        document = shorter
    return written


def _shorter(document: RoundMembers | PastRounds) -> RoundMembers | PastRounds:
    if isinstance(document, PastRounds):
        return replace(document, rounds=document.rounds[(len(document.rounds) + 1) // 2 :])
    kept = document.members[: len(document.members) // 2]
    hidden = document.hidden + len(document.members) - len(kept)
    return replace(document, members=kept, hidden=hidden)
