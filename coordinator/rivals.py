"""Whether another coordinator serves the same federation. Pure: times are monotonic seconds, nonces are given.

Theory of operation. Two coordinators of one federation draw the same devices into different rounds, so there may be
one. The broker cannot tell: it routes for both, and a status that it retains, or that somebody says again, proves no
life. So coordinators ask. A question carries a nonce that was drawn for it, an answer names that nonce, and where
parties sign, both are signed with the coordinator's key: an answer proves that its speaker lived after the question
was asked, and counts as of that time, however late it comes. Everybody answers every question, and asks back.

A process is in one of three stages, which its answers name:

- `starting`: it asks every ASK_S and says nothing else. After SILENCE_S without an answer it runs. The silence counts
  from the return of its own question, which shows that the broker carries them; a broker that does not carry them
  within BLIND_S proves nothing, so the process runs all the same. The answer of one that runs or takes over ends it.
  Of two that start at the same time the one with the smaller name ends, so that one is left.
- `taking-over`: the operator wants it in the place of the other. It waits for the other's silence: its own answer ends
  whoever is not taking over too. Of two that take over the one with the smaller name ends.
- `running`: it asks every `period_s`, and on each new connection. The answer of another that runs is a meeting: neither
  can know which one is wanted, so both say so and open no round until one is stopped. During a meeting it asks every
  MEETING_S, and takes the other for gone when no question of the last GONE_S was answered. Time without a connection
  is no silence.

Only an answer to a question of one's own ends or warns anybody. A question, which may be a replay, draws an answer.
"""

from dataclasses import dataclass, replace

from common.coordinators import Alive, Probe, Stage

ASK_S = 0.5
SILENCE_S = 2.0
BLIND_S = 10.0
MEETING_S = 2.0
GONE_S = 10.0
ALONE_S = 10.0
"""A start that gets no connection opens rounds after so long all the same: the operator sees what becomes of them."""
KEPT = 16
"""Questions whose answers still count."""


@dataclass(frozen=True)
class Rivals:
    """What a process knows of others. `process` is its name, `period_s` the pause between questions while it runs."""

    process: str
    stage: Stage
    began: float
    period_s: float
    connected_at: float | None = None
    due: float = 0.0
    """When to ask next."""
    asked: tuple[tuple[str, float], ...] = ()
    """Nonce and time of the last questions."""
    quiet_since: float | None = None
    """Since when no answer has come, once the broker was seen to carry questions."""
    met_at: float | None = None
    """When the other one that runs was last known to live."""
    ended_by: Stage | None = None
    """The stage of the one for which this process must end."""

    @property
    def may_speak(self) -> bool:
        """Whether devices may hear of this process."""
        return self.stage == "running" and self.ended_by is None

    @property
    def is_met(self) -> bool:
        """Whether another one runs as well."""
        return self.met_at is not None

    @property
    def is_blind(self) -> bool:
        """Whether the broker has not carried a question on this connection."""
        return self.connected_at is not None and self.quiet_since is None

    def has_listened(self, now: float) -> bool:
        """Whether it is known by now that no other one answers, or there is no broker by which to ask."""
        return self.may_speak or (self.connected_at is None and now - self.began >= ALONE_S)

    def may_open(self, now: float) -> bool:
        """Whether a round may be opened."""
        return not self.is_met and self.has_listened(now)

    def is_due(self, now: float) -> bool:
        """Whether it is time for a question."""
        return self.connected_at is not None and now >= self.due


def connect(rivals: Rivals, now: float) -> Rivals:
    """Begin anew on a connection."""
    met_at = None if rivals.met_at is None else now
    return replace(rivals, connected_at=now, due=now, asked=(), quiet_since=None, met_at=met_at)


def disconnect(rivals: Rivals) -> Rivals:
    """Take note that nothing is heard."""
    return replace(rivals, connected_at=None, quiet_since=None)


def ask(rivals: Rivals, nonce: str, now: float) -> tuple[Rivals, Probe]:
    """Ask with a nonce that was drawn for this question."""
    pause = MEETING_S if rivals.is_met else rivals.period_s
    asked = (*rivals.asked, (nonce, now))[-KEPT:]
    due = now + (pause if rivals.stage == "running" else ASK_S)
    return replace(rivals, asked=asked, due=due), Probe(process=rivals.process, nonce=nonce)


def hear(rivals: Rivals, message: Probe | Alive, now: float) -> tuple[Rivals, Alive | None]:
    """Take a message; returns the answer, where it is another's question."""
    if isinstance(message, Alive):
        asked_at = dict(rivals.asked).get(message.nonce)
        if message.process == rivals.process or asked_at is None:
            return rivals, None
        return _conclude(rivals, message, asked_at, now), None
    if message.process == rivals.process:
        carried = message.nonce in dict(rivals.asked) and rivals.quiet_since is None
        return (replace(rivals, quiet_since=now) if carried else rivals), None
    last = rivals.asked[-1][1] if rivals.asked else now - ASK_S
    asks_back = replace(rivals, due=min(rivals.due, max(now, last + ASK_S)))
    return asks_back, Alive(process=rivals.process, nonce=message.nonce, stage=rivals.stage)


def tick(rivals: Rivals, now: float) -> Rivals:
    """Let time pass."""
    if rivals.connected_at is None:
        return rivals
    if rivals.stage != "running":
        is_silent = rivals.quiet_since is not None and now - rivals.quiet_since >= SILENCE_S
        is_blind = rivals.is_blind and now - rivals.connected_at >= BLIND_S
        due = now + rivals.period_s
        return replace(rivals, stage="running", due=due) if is_silent or is_blind else rivals
    is_gone = rivals.met_at is not None and now - rivals.met_at >= GONE_S
    return replace(rivals, met_at=None) if is_gone else rivals


def excuse(rivals: Rivals, missed_s: float) -> Rivals:
    """Take `missed_s` seconds during which this process did not listen for no silence."""

    def later(moment: float | None) -> float | None:
        return None if moment is None else moment + missed_s

    times = {name: later(getattr(rivals, name)) for name in ("connected_at", "quiet_since", "met_at")}
    return replace(rivals, **times)  # type: ignore[arg-type]  # all of them are moments


def _conclude(rivals: Rivals, answer: Alive, asked_at: float, now: float) -> Rivals:
    """Decide what the life of another process means."""
    if rivals.stage == "running":
        if answer.stage == "running":
            return replace(
                rivals, met_at=max(asked_at, rivals.met_at or asked_at), due=min(rivals.due, now + MEETING_S)
            )
        is_lost = answer.stage == "taking-over"
    elif rivals.stage == answer.stage:
        is_lost = answer.process > rivals.process
    else:
        is_lost = rivals.stage == "starting"
    if is_lost:
        return replace(rivals, ended_by=answer.stage)
    return replace(rivals, quiet_since=now) if rivals.stage == "taking-over" else rivals
