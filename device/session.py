"""A device's part in rounds as a state machine: pure. Times are monotonic seconds.

Whatever the device says is said again, ever more slowly, until the coordinator's next message or the
end of the round answers it; so lost messages, restarts of either side and an empty broker need no
other treatment. The only thing that must survive a power cut is a finished update and its offer.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from common import plan as plans
from common.errors import PeerError
from common.messages import Accept, CheckIn, Decline, Failed, Offer, Result, RoundStatus, clip
from common.plan import RoundPlan
from device.session_events import (
    CancelJob,
    Command,
    DropUpdate,
    Event,
    Examined,
    Fetch,
    Fetched,
    Invited,
    Pointed,
    Receipted,
    Reconnected,
    Said,
    Speak,
    StartJob,
    Tick,
    Trained,
    TrainingFailed,
    Wanted,
    WasRefused,
    WasResolved,
)


@dataclass(frozen=True)
class Waits:
    """Seconds until what was not answered is said again: first, at most, and after a Want."""

    repeat_s: float = 3.0
    repeat_max_s: float = 60.0
    wanted_s: float = 10.0


WAITS = Waits()


class Stage(StrEnum):
    """Where a device stands in a round."""

    JOINING = "checking in"
    FETCHING = "fetching the global model"
    TRAINING = "training"
    OFFERING = "delivering its update"
    DELIVERED = "done with this round"
    FAILED = "unable to finish this round"
    REFUSED = "refused"
    DECLINED = "sitting it out"


@dataclass(frozen=True)
class Task:
    """The device's part in one round. `says` is repeated at `repeat_at` until something answers it."""

    round: int
    generation: str
    stage: Stage
    plan: RoundPlan | None = None
    digest: str = ""
    """SHA-256 of the plan as it travelled, which the offer names."""
    offer: Offer | None = None
    says: Said | None = None
    repeat_at: float = float("inf")
    repeat_s: float = 0.0


@dataclass(frozen=True)
class Session:
    """The device's whole state: the round as the coordinator last told it, the part in it or why it takes none."""

    device: str
    pointer: RoundStatus | None = None
    task: Task | None = None
    unfitness: str = ""
    waits: Waits = WAITS
    labels: tuple[str, ...] = ("no", "yes")
    """What the labels of this device's data are called, in the order of their numbers."""
    result: Result | None = None
    """What became of the device's update in the last round that it took part in."""

    @property
    def doing(self) -> str:
        """Say what the device does, for people."""
        if self.unfitness and (self.task is None or self.task.stage is Stage.DECLINED):
            return f"sitting rounds out: {self.unfitness}"
        if self.task:
            return f"{self.task.stage.value}, round {self.task.round}"
        return clip(f"waiting for a round{_told(self.result)}", 200)


Step = tuple[Session, tuple[Command, ...]]


def resume(session: Session, offer: Offer | None, now: float) -> Session:
    """Begin, with the offer that an earlier process kept."""
    if offer is None:
        return session
    wait = session.waits.repeat_s
    task = Task(offer.round, offer.generation, Stage.OFFERING, offer=offer, says=offer, repeat_at=now, repeat_s=wait)
    return replace(session, task=task)


def step(session: Session, event: Event, now: float) -> Step:  # noqa: C901, PLR0911, PLR0912 - one line an event, the table itself
    """Take one event; returns the new state and what to do."""
    task = session.task
    match event:
        case Pointed(status=status):
            return _pointed(session, status, now)
        case Invited():
            return _invited(session, event, now)
        case Fetched(blob=blob) if task and task.stage is Stage.FETCHING and task.plan:
            if task.plan.base.id == blob:
                return _stay(session, Stage.TRAINING), (StartJob(task.plan, task.digest),)
        case Trained(offer=offer) if (
            task and task.stage is Stage.TRAINING and _is_of(task, offer.round, offer.generation)
        ):
            return _saying(replace(session, task=replace(task, offer=offer)), Stage.OFFERING, offer, now)
        case TrainingFailed(round=number, reason=reason) if task and task.round == number:
            if task.stage in {Stage.TRAINING, Stage.FETCHING}:
                failed = Failed(device=session.device, round=number, generation=task.generation, reason=clip(reason))
                return _saying(session, Stage.FAILED, failed, now)
        case Wanted(blob=blob) if task and task.offer and task.offer.update.id == blob:
            return _answered(session, now), ()
        case Receipted(round=number, generation=generation) if task and _is_of(task, number, generation):
            if task.stage in {Stage.OFFERING, Stage.JOINING, Stage.DELIVERED}:
                return _stay(session, Stage.DELIVERED), ()
        case WasRefused(round=number, generation=generation) if task and _is_of(task, number, generation):
            return _stay(session, Stage.REFUSED), (CancelJob(), DropUpdate())
        case WasResolved(result=result):
            return _resolved(session, result)
        case Examined(unfitness=reason):
            return _examined(replace(session, unfitness=reason), now)
        case Reconnected() if task and task.says:
            return _saying(session, task.stage, task.says, now)  # the patience of a silence begins anew as well
        case Reconnected() if task and task.stage is Stage.DELIVERED:
            # A power cut may have taken the update from it: ask until it has the update, or invites this device anew.
            return _saying(session, Stage.DELIVERED, _check_in(session, task), now)
        case Tick() if task and task.says and now >= task.repeat_at:
            return _repeat(session, now)
    return session, ()


# ---- one function an event ------------------------------------------------------------------


def _pointed(session: Session, status: RoundStatus, now: float) -> Step:
    known = session.pointer.model if session.pointer else None
    fetch: tuple[Command, ...] = ()
    if status.model is not None and (known is None or known.id != status.model.id):
        fetch = (Fetch(status.model),)
    session = replace(session, pointer=status)
    task = session.task
    is_open = status.phase in {"selecting", "reporting", "aggregating"}
    if task is not None and not (is_open and _is_of(task, status.round, status.generation)):
        # Its result comes with the end of the round. Who was away for that asks, once.
        ask = (Speak(_check_in(session, task)),) if task.offer and not _is_told(session, task) else ()
        session, ended = replace(session, task=None), (*ask, CancelJob(), DropUpdate())
        return _join(session, status, now, (*fetch, *ended))
    if task is not None and task.stage is not Stage.JOINING and status.phase == "selecting":
        # The coordinator lost its cohort to a power cut. Whoever is in the middle of it joins again.
        if task.stage is Stage.DECLINED and session.unfitness:
            return session, fetch
        if task.stage in {Stage.REFUSED, Stage.DECLINED}:
            return _join(replace(session, task=None), status, now, fetch)
        return session, (*fetch, Speak(_check_in(session, task)))
    return _join(session, status, now, fetch)


def _join(session: Session, status: RoundStatus, now: float, before: tuple[Command, ...]) -> Step:
    """Check in to a round that takes devices, and to one that waits for updates: perhaps this device is in it."""
    if session.task is not None or status.phase not in {"selecting", "reporting"}:
        return session, before
    task = Task(status.round, status.generation, Stage.JOINING)
    session = replace(session, task=task)
    if session.unfitness:
        session, say = _decline(session, task, session.unfitness, now)
    else:
        session, say = _saying(session, Stage.JOINING, _check_in(session, task), now)
    return session, (*before, *say)


def _invited(session: Session, invited: Invited, now: float) -> Step:
    task, plan = session.task, invited.plan
    if task is None or not _is_of(task, plan.round, plan.generation):
        return session, ()  # the pointer says first which round is open; a check-in brings the invitation again
    accept = Speak(Accept(device=session.device, round=plan.round, generation=plan.generation))
    match task.stage:
        case Stage.JOINING:
            try:
                plans.check_labels(plan, session.labels)
            except PeerError as error:
                return _decline(session, task, str(error), now)
            session = replace(
                session, task=replace(task, stage=Stage.FETCHING, plan=plan, digest=invited.digest, says=None)
            )
            return session, (accept, Fetch(plan.base))
        case Stage.FETCHING | Stage.TRAINING:
            return session, (accept,)
        case Stage.DELIVERED if task.offer is not None:  # it lost the update to a power cut
            return _saying(session, Stage.OFFERING, task.offer, now)
    return session, ()


def _resolved(session: Session, result: Result) -> Step:
    """Take note of what became of the update; the end of the round ends the task as well, with its next status."""
    known = session.result
    if known is not None and known.generation == result.generation and result.round < known.round:
        return session, ()
    return replace(session, result=result), ()


def _examined(session: Session, now: float) -> Step:
    """Take back a check-in that the device is not fit to keep. What is being trained or delivered goes on."""
    match session:
        case Session(unfitness=str(reason), task=Task(stage=Stage.JOINING | Stage.FETCHING) as task) if reason:
            return _decline(session, task, reason, now)
        case Session(unfitness="", pointer=RoundStatus(phase="selecting") as status, task=Task(stage=Stage.DECLINED)):
            return _join(replace(session, task=None), status, now, ())
    return session, ()


def _decline(session: Session, task: Task, reason: str, now: float) -> Step:
    decline = Decline(device=session.device, round=task.round, generation=task.generation, reason=clip(reason))
    declined = Task(task.round, task.generation, Stage.DECLINED)
    return _saying(replace(session, task=declined), Stage.DECLINED, decline, now)


def _check_in(session: Session, task: Task) -> CheckIn:
    return CheckIn(device=session.device, round=task.round, generation=task.generation)


def _is_of(task: Task, number: int, generation: str) -> bool:
    """Whether a task belongs to a round: numbers come again after a coordinator is restored, generations do not."""
    return (task.round, task.generation) == (number, generation)


def _is_told(session: Session, task: Task) -> bool:
    result = session.result
    return result is not None and _is_of(task, result.round, result.generation)


def _told(result: Result | None) -> str:
    if result is None:
        return ""
    return f"; its update of round {result.round} {'counted' if result.counted else f'did not count: {result.reason}'}"


def _stay(session: Session, stage: Stage) -> Session:
    """Move to `stage` with nothing left to say."""
    assert session.task is not None  # noqa: S101 - callers have matched it
    return replace(session, task=replace(session.task, stage=stage, says=None, repeat_at=float("inf")))


def _saying(session: Session, stage: Stage, message: Said, now: float) -> Step:
    """Move to `stage`, saying `message` until it is answered."""
    assert session.task is not None  # noqa: S101 - callers have matched it
    wait = session.waits.repeat_s
    task = replace(session.task, stage=stage, says=message, repeat_at=now + wait, repeat_s=wait)
    return replace(session, task=task), (Speak(message),)


def _answered(session: Session, now: float) -> Session:
    """The coordinator is working on what was said: leave it in peace for a while."""
    assert session.task is not None  # noqa: S101 - callers have matched it
    return replace(session, task=replace(session.task, repeat_at=now + session.waits.wanted_s))


def _repeat(session: Session, now: float) -> Step:
    task = session.task
    assert task is not None  # noqa: S101 - callers have matched it
    assert task.says is not None  # noqa: S101 - callers have matched it
    wait = min(2 * task.repeat_s, session.waits.repeat_max_s)
    return replace(session, task=replace(task, repeat_at=now + wait, repeat_s=wait)), (
        Speak(task.says, is_repeat=True),
    )
