"""A round told to people: the documents that its state and its changes become. Pure."""

from common.messages import MAX_METRICS, Metrics, Ref, RoundStatus, StoryEvent, clip
from coordinator.round_state import Member, Phase, Round, Standing

_TOLD = {
    Standing.REPORTED: ("update-counted", "{device} delivered its update of {examples} examples"),
    Standing.DECLINED: ("declined", "{device} cannot take part: {reason}"),
    Standing.FAILED: ("training-failed", "training failed on {device}: {reason}"),
    Standing.REFUSED: ("update-refused", "the update of {device} does not count: {reason}"),
    Standing.MISSING: ("missing", "{device} {reason}"),
    Standing.UNABLE: ("unable", "{device} cannot take part: it {reason}"),
}


def idle_status(epoch: str, number: int, model: Ref | None) -> RoundStatus:
    """Tell that no round is open; `number` is the last one."""
    return RoundStatus(epoch=epoch, round=number, phase="idle", model=model, text="No round is open.")


def round_status(round_: Round, epoch: str) -> RoundStatus:
    """Tell where a round stands, and which model to hold."""
    return RoundStatus(
        epoch=epoch,
        round=round_.number,
        generation=round_.plan.generation,
        phase=round_.phase.value,
        model=round_.result or round_.base,
        invited=0 if round_.phase is Phase.SELECTING else len(round_.cohort),
        reported=len(round_.reported),
        goal=round_.options.goal,
        minimum=round_.options.minimum,
        text=sentence(round_),
    )


def sentence(round_: Round) -> str:
    """Tell where a round stands in one sentence."""
    return clip(f"Round {round_.number} {_stands(round_)}")


def changes(before: Round | None, after: Round) -> list[StoryEvent]:
    """Tell what became of members between two states."""
    old, new = before.members if before else (), after.members
    if len(old) == len(new):  # nearly always it is one member that changed, and a round may have a thousand
        pairs = [(m, n) for m, n in zip(old, new, strict=True) if m is not n]
        old, new = tuple(m for m, _ in pairs), tuple(n for _, n in pairs)
    known = {m.device: m.standing for m in old}
    return [_event(after, m) for m in new if m.standing in _TOLD and known.get(m.device) != m.standing]


def mean_metrics(round_: Round) -> Metrics:
    """Average the metrics of the members that reported, weighted by their number of examples."""
    sums: dict[str, tuple[float, int]] = {}
    for m in round_.reported:
        for name, value in m.metrics.items():
            total, weight = sums.get(name, (0.0, 0))
            sums[name] = (total + value * m.num_examples, weight + m.num_examples)
    return {name: total / weight for name, (total, weight) in sorted(sums.items())[:MAX_METRICS]}


def _stands(round_: Round) -> str:
    invited, reported = len(round_.cohort), len(round_.reported)
    match round_.phase:
        case Phase.SELECTING:
            return f"is open: {invited} of {round_.options.goal} devices have checked in."
        case Phase.REPORTING:
            return f"is training: {reported} of {invited} devices have reported."
        case Phase.AGGREGATING:
            return f"is averaging {reported} updates."
        case Phase.COMMITTED:
            return f"made a new global model from {reported} of {invited} devices."
        case Phase.ABANDONED:
            return f"is void: {round_.reason}."


def _event(round_: Round, member: Member) -> StoryEvent:
    event, text = _TOLD[member.standing]
    told = text.format(device=member.device, examples=member.num_examples, reason=member.reason or "it gave no reason")
    return StoryEvent(
        event=event,
        round=round_.number,
        device=member.device,
        metrics=member.metrics,
        text=clip(f"Round {round_.number}: {told}."),
    )
