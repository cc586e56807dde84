"""A run of rounds, followed through the journal until it is over: looking on disturbs nobody."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import WorkError
from common.plain_text import printable
from coordinator.lock import is_served
from coordinator.round_state import Phase, Round, Standing
from coordinator.store import LedgerRow, RoundRow, Run, Store
from coordinator.story import sentence
from coordinator.views import is_over, trouble
from coordinator.wording import count, duration

if TYPE_CHECKING:
    from rich.console import Console

POLL_S = 0.25
MOST_TOLD = 5


@dataclass(frozen=True)
class Moment:
    """A run as the journal has it now: the rounds that are over, and the one that is open, `opened` in Unix seconds."""

    run: Run
    is_served: bool
    closed: tuple[RoundRow, ...] = ()
    open: Round | None = None
    opened: float = 0.0
    trouble: str = ""
    """Why no round is opened."""

    @property
    def void(self) -> list[RoundRow]:
        """Rounds that changed nothing."""
        return [row for row in self.closed if row.phase != Phase.COMMITTED]


def follow(store: Store, folder: Path, number: int) -> Iterator[Moment]:
    """Yield run `number` every POLL_S until it is over."""
    closed: tuple[RoundRow, ...] = ()
    settled = (store.first_round(number) or store.last_round() + 1) - 1
    while True:
        # The run first: once it is over, so are its rounds.
        run = store.run(number)
        assert run is not None  # noqa: S101 - a run is never deleted
        found, newest = store.open_round(), store.rounds(settled)
        over = [row for row in newest if is_over(row)]
        settled = over[-1].round if over else settled
        closed += tuple(row for row in over if row.run == number)
        opened = next((row.opened for row in newest if not is_over(row)), time.time())
        its_own = found[0] if found and found[1] == number else None
        yield Moment(run, is_served(folder), closed, its_own, opened, trouble(store))
        if run.state in {"done", "stopped"}:
            return
        time.sleep(POLL_S)


def show(moments: Iterable[Moment], console: "Console") -> Moment:
    """Show a run while it goes on, as bars on a terminal and a line a change elsewhere; returns its end."""
    if console.is_terminal:
        return _show_bars(moments, console)
    before, now = None, None
    for now in moments:
        for line in news(before, now):
            console.print(line)
        before = now
    assert now is not None  # noqa: S101 - `follow` yields at least once
    return now


def news(before: Moment | None, now: Moment) -> list[str]:
    """Tell what changed between two moments: rounds that ended, then what is waited for."""
    told = len(before.closed) if before else 0
    lines = [outcome(row) for row in now.closed[told:]]
    if (waiting := waits_for(now)) and (before is None or waiting != waits_for(before)):
        lines.append(waiting)
    return lines


def waits_for(moment: Moment) -> str:
    """Tell what a run waits for; nothing once it is over."""
    run = moment.run
    if run.state in {"done", "stopped"}:
        return ""
    if not moment.is_served:
        return f"Run {run.run} is queued until a coordinator is served."
    if moment.open is not None:
        return sentence(moment.open)
    if moment.trouble:
        return f"Run {run.run} waits: {moment.trouble}."
    return f"Run {run.run} is queued." if run.state == "queued" else ""


def outcome(row: RoundRow) -> str:
    """Tell how a round ended."""
    if row.phase == Phase.COMMITTED:
        reported = f"{len(row.reported)} of {count(len(row.invited), 'device')}"
        return f"Round {row.round} is committed: {reported} reported in {duration(row.seconds)}."
    return f"Round {row.round} is void after {duration(row.seconds)}: {row.reason}."


def judge(end: Moment, ledger: Sequence[LedgerRow]) -> None:
    """Raise WorkError unless every round that was asked for is committed; `ledger` tells what became of devices."""
    void = end.void
    if void:
        told = "; ".join(f"round {row.round}: {_why(row, ledger)}" for row in void[:MOST_TOLD])
        more = f"; and {len(void) - MOST_TOLD} more" if len(void) > MOST_TOLD else ""
        raise WorkError(f"{len(void)} of {count(len(end.closed), 'round')} void: {told}{more}")
    if len(end.closed) < end.run.rounds:
        raise WorkError(f"run {end.run.run} was stopped after {len(end.closed)} of {count(end.run.rounds, 'round')}")


def _why(row: RoundRow, ledger: Sequence[LedgerRow]) -> str:
    blamed: dict[str, list[str]] = {}
    for entry in ledger:
        if entry.round == row.round and entry.standing not in {Standing.REPORTED, Standing.JOINED}:
            blamed.setdefault(": ".join(filter(None, (entry.standing, entry.reason))), []).append(entry.device)
    devices = "; ".join(f"{', '.join(names)} {what}" for what, names in blamed.items())
    return printable(f"{row.reason} ({devices})" if devices else row.reason)


def _show_bars(moments: Iterable[Moment], console: "Console") -> Moment:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    what, since = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[time]}")
    with Progress(what, BarColumn(20), MofNCompleteColumn(), since, console=console) as bars:
        whole, current = bars.add_task("rounds", total=None, time=""), bars.add_task("", visible=False, time="")
        before, now = None, None
        for now in moments:
            for row in now.closed[len(before.closed) if before else 0 :]:
                console.print(outcome(row))
            bars.update(whole, completed=len(now.closed), total=now.run.rounds)
            done, total = _parts(now.open)
            bars.update(current, description=waits_for(now), visible=bool(waits_for(now)), completed=done, total=total)
            bars.update(current, time=duration(time.time() - now.opened) if now.open else "")
            before = now
    assert now is not None  # noqa: S101 - `follow` yields at least once
    return now


def _parts(round_: Round | None) -> tuple[int, int]:
    """How many devices the phase has, and how many it waits for."""
    if round_ is None:
        return 0, 1
    if round_.phase is Phase.SELECTING:
        return len(round_.cohort), round_.options.goal
    return len(round_.reported), len(round_.cohort)
