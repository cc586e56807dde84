"""A device's part in rounds as a state machine: pure. Times are monotonic seconds.

Whatever the device says is said again, ever more slowly, until the coordinator's next message or the
end of the round answers it; so lost messages, restarts of either side and an empty broker need no
other treatment. The only thing that must survive a power cut is a finished update and its offer.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from common.messages import Accept, CheckIn, Decline, Failed, Invite, Offer, Ref, RoundStatus, clip

Said = CheckIn | Accept | Decline | Failed | Offer


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
    stage: Stage
    invite: Invite | None = None
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

    @property
    def doing(self) -> str:
        """Say what the device does, for people."""
        if self.unfitness and (self.task is None or self.task.stage is Stage.DECLINED):
            return f"sitting rounds out: {self.unfitness}"
        return f"{self.task.stage.value}, round {self.task.round}" if self.task else "waiting for a round"


# ---- events ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pointed:
    """The coordinator told where the round stands."""

    status: RoundStatus


@dataclass(frozen=True)
class Invited:
    """The device is in the cohort."""

    invite: Invite


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


@dataclass(frozen=True)
class WasRefused:
    """The coordinator does not want the update."""

    round: int
    reason: str


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
    | Examined
    | Reconnected
    | Tick
)

# ---- commands -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Speak:
    """Send a message to the coordinator."""

    message: Said


@dataclass(frozen=True)
class Fetch:
    """Get a blob, or say at once that it is here."""

    ref: Ref


@dataclass(frozen=True)
class StartJob:
    """Train."""

    invite: Invite


@dataclass(frozen=True)
class CancelJob:
    """End the training of a round that is over."""


@dataclass(frozen=True)
class DropUpdate:
    """Delete the update: its round is over."""


Command = Speak | Fetch | StartJob | CancelJob | DropUpdate
Step = tuple[Session, tuple[Command, ...]]


def resume(device: str, offer: Offer | None, now: float, waits: Waits = WAITS) -> Session:
    """Begin, with the offer that an earlier process kept."""
    task = Task(offer.round, Stage.OFFERING, None, offer, offer, now, waits.repeat_s) if offer else None
    return Session(device, None, task, waits=waits)


def step(session: Session, event: Event, now: float) -> Step:  # noqa: C901, PLR0911, PLR0912 - one line an event, the table itself
    """Take one event; returns the new state and what to do."""
    task = session.task
    match event:
        case Pointed(status=status):
            return _pointed(session, status, now)
        case Invited(invite=invite):
            return _invited(session, invite)
        case Fetched(blob=blob) if task and task.stage is Stage.FETCHING and task.invite:
            if task.invite.base.id == blob:
                return _stay(session, Stage.TRAINING), (StartJob(task.invite),)
        case Trained(offer=offer) if task and task.stage is Stage.TRAINING and task.round == offer.round:
            return _saying(replace(session, task=replace(task, offer=offer)), Stage.OFFERING, offer, now)
        case TrainingFailed(round=number, reason=reason) if task and task.round == number:
            if task.stage in {Stage.TRAINING, Stage.FETCHING}:
                failed = Failed(device=session.device, round=number, reason=clip(reason))
                return _saying(session, Stage.FAILED, failed, now)
        case Wanted(blob=blob) if task and task.offer and task.offer.update.id == blob:
            return _answered(session, now), ()
        case Receipted(round=number) if task and task.round == number and task.stage in {Stage.OFFERING, Stage.JOINING}:
            return _stay(session, Stage.DELIVERED), ()
        case WasRefused(round=number) if task and task.round == number:
            return _stay(session, Stage.REFUSED), (CancelJob(), DropUpdate())
        case Examined(unfitness=reason):
            return _examined(replace(session, unfitness=reason), now)
        case Reconnected() if task and task.says:
            return _saying(session, task.stage, task.says, now)  # the patience of a silence begins anew as well
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
    if task is not None and (task.round != status.round or not is_open):
        session, ended = replace(session, task=None), (CancelJob(), DropUpdate())
        return _join(session, status, now, (*fetch, *ended))
    if task is not None and task.stage is not Stage.JOINING and status.phase == "selecting":
        # The coordinator lost its cohort to a power cut. Whoever is in the middle of it joins again.
        if task.stage is Stage.DECLINED and session.unfitness:
            return session, fetch
        if task.stage in {Stage.REFUSED, Stage.DECLINED}:
            return _join(replace(session, task=None), status, now, fetch)
        return session, (*fetch, Speak(CheckIn(device=session.device, round=status.round)))
    if task is not None and task.stage is Stage.DELIVERED and task.offer and _is_unknown(session.device, status):
        session, again = _saying(session, Stage.OFFERING, task.offer, now)
        return session, (*fetch, *again)
    return _join(session, status, now, fetch)


def _is_unknown(device: str, status: RoundStatus) -> bool:
    """Whether a round that waits for updates does not know this device's, as after the coordinator lost it."""
    return status.phase == "reporting" and device in status.cohort and device not in status.reported


def _join(session: Session, status: RoundStatus, now: float, before: tuple[Command, ...]) -> Step:
    """Check in to a round that is open for this device, also to one that it lost sight of."""
    is_ours = status.phase == "selecting" or (status.phase == "reporting" and session.device in status.cohort)
    if session.task is not None or not is_ours or session.device in status.reported:
        return session, before
    if session.unfitness:
        session, say = _decline(session, status.round, now)
        return session, (*before, *say)
    check_in = CheckIn(device=session.device, round=status.round)
    session = replace(session, task=Task(status.round, Stage.JOINING))
    session, say = _saying(session, Stage.JOINING, check_in, now)
    return session, (*before, *say)


def _invited(session: Session, invite: Invite) -> Step:
    task = session.task
    if task is None or task.round != invite.round:
        return session, ()  # the pointer says first which round is open; a check-in brings the invitation again
    accept = Speak(Accept(device=session.device, round=invite.round))
    if task.stage is not Stage.JOINING:
        return session, (accept,) if task.stage in {Stage.FETCHING, Stage.TRAINING} else ()
    session = replace(session, task=Task(invite.round, Stage.FETCHING, invite))
    return session, (accept, Fetch(invite.base))


def _examined(session: Session, now: float) -> Step:
    """Take back a check-in that the device is not fit to keep. What is being trained or delivered goes on."""
    match session:
        case Session(unfitness=str(reason), task=Task(stage=Stage.JOINING | Stage.FETCHING) as task) if reason:
            return _decline(session, task.round, now)
        case Session(unfitness="", pointer=RoundStatus(phase="selecting") as status, task=Task(stage=Stage.DECLINED)):
            return _join(replace(session, task=None), status, now, ())
    return session, ()


def _decline(session: Session, number: int, now: float) -> Step:
    decline = Decline(device=session.device, round=number, reason=clip(session.unfitness))
    return _saying(replace(session, task=Task(number, Stage.DECLINED)), Stage.DECLINED, decline, now)


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
    return replace(session, task=replace(task, repeat_at=now + wait, repeat_s=wait)), (Speak(task.says),)
