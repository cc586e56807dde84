"""What the journal says, as documents for programs and tables for people. Reads, never writes."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from common.command import table
from common.errors import UsageError
from common.health import Health
from common.messages import Ref
from coordinator.attention import Notice, ailments
from coordinator.round_state import Phase, Standing
from coordinator.rows import TROUBLE
from coordinator.store import DeviceRow, LedgerRow, Release, RoundRow, Run, Store
from coordinator.wording import ago, count, duration, figures, headline, size, styled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    pass


class DeviceView(DeviceRow, frozen=True, kw_only=True):
    """A device as last heard of, and its part so far: rounds it was invited to, updates that counted."""

    invited: int
    reported: int


class RoundView(_Document, frozen=True):
    """One round, with what became of every device in it."""

    round: RoundRow
    ledger: list[LedgerRow]


class StatusView(_Document, frozen=True):
    """Where the federation stands. `open_round`: the round that is not over; `run`: the rounds that were asked for.

    `trouble`: why no round is opened, a sentence; empty where nothing keeps the coordinator from it.
    """

    federation: str
    is_served: bool
    model: Ref | None
    last_round: RoundRow | None
    open_round: RoundView | None
    run: Run | None
    release: Release | None
    devices: list[DeviceView]
    trouble: str = ""


# ---- from the journal -----------------------------------------------------------------------


def devices(store: Store) -> list[DeviceView]:
    """Return every device ever heard of."""
    invited, reported = Counter[str](), Counter[str]()
    for (device, standing), number in store.standings().items():
        invited[device] += number if standing != Standing.JOINED else 0
        reported[device] += number if standing == Standing.REPORTED else 0
    return [
        DeviceView(**msgspec.structs.asdict(row), invited=invited[row.device], reported=reported[row.device])
        for row in store.devices()
    ]


def one_round(store: Store, number: int) -> RoundView:
    """Return round `number`; raises UsageError where there is none."""
    row = store.round_row(number)
    if row is None:
        raise UsageError(f"there is no round {number}; the last one is {store.last_round()}")
    return RoundView(round=row, ledger=store.ledger(number))


def status(store: Store, federation: str, *, is_served: bool) -> StatusView:
    """Return where the federation stands."""
    newest = store.rounds(last=2)
    over = [row for row in newest if is_over(row)]
    still_open = next((row for row in newest if not is_over(row)), None)
    return StatusView(
        federation=federation,
        is_served=is_served,
        model=store.global_model(),
        last_round=over[-1] if over else None,
        open_round=one_round(store, still_open.round) if still_open else None,
        run=store.active_run(),
        release=store.newest_release(),
        devices=devices(store),
        trouble=trouble(store) if is_served else "",
    )


def trouble(store: Store) -> str:
    """Return why the coordinator that is served opens no round, as far as it has said so."""
    return store.fact(TROUBLE) or ""


def is_over(row: RoundRow) -> bool:
    """Whether a round is committed or void."""
    return row.phase in {Phase.COMMITTED, Phase.ABANDONED}


# ---- for people -----------------------------------------------------------------------------


def show_status(view: StatusView, console: "Console") -> None:
    """Print where the federation stands, then the open round device by device."""
    now = time.time()
    last, model, run, release = view.last_round, view.model, view.run, view.release
    lines = [
        ("federation", view.federation),
        ("coordinator", "running" if view.is_served else "not running; start it with: fedpi-coordinator serve"),
        ("devices", f"{sum(d.state == 'online' for d in view.devices)} of {len(view.devices)} online"),
        ("global model", f"{model.id[:8]}, {size(model.size)}" if model else "none yet"),
        ("last round", f"{last.round}: {_outcome(last)}" if last else "none yet"),
        ("run", f"{run.run}: {run.state}, {run.begun} of {count(run.rounds, 'round')} begun" if run else "none"),
        ("release", f"{release.release}, {ago(release.created, now)}" if release else "none"),
    ]
    if view.trouble:
        lines.append(("attention", view.trouble))
    if view.open_round:
        row = view.open_round.round
        lines.append(("open round", f"{row.round}: {row.phase} for {duration(row.seconds)}"))
    facts = table(("", ""), lines)
    facts.show_header = False
    console.print(facts)
    if view.open_round:
        doing = {device.device: device.doing for device in view.devices}
        rows = [(e.device, styled(e.standing), doing.get(e.device, "")) for e in view.open_round.ledger]
        console.print(table(("device", "in this round", "doing"), rows))


def devices_table(views: Sequence[DeviceView]) -> "Table":
    """Lay the devices out, one a row."""
    now = time.time()
    rows = [
        (
            v.device,
            styled(v.state),
            v.doing,
            v.release,
            ago(v.seen, now),
            f"{v.reported} of {v.invited}",
            _health(v.health),
        )
        for v in views
    ]
    return table(("device", "state", "doing", "release", "seen", "reported", "health"), rows)


def rounds_table(rows: Sequence[RoundRow]) -> "Table":
    """Lay rounds out, one a row."""
    columns = ("round", "phase", "reported", "time", "down", "up", "metrics or reason")
    return table(columns, [_round_cells(row) for row in rows])


def show_round(view: RoundView, console: "Console") -> None:
    """Print a round, then the ledger: what became of every device in it."""
    console.print(rounds_table([view.round]))
    columns = ("device", "standing", "examples", "update", "metrics or reason")
    rows = [
        (e.device, styled(e.standing), e.num_examples or "", e.update_id[:8], e.reason or figures(e.metrics))
        for e in view.ledger
    ]
    console.print(table(columns, rows))


def _round_cells(row: RoundRow) -> tuple[object, ...]:
    reported = f"{len(row.reported)} of {len(row.invited)}"
    moved = size(row.bytes_down), size(row.bytes_up)
    return row.round, styled(row.phase), reported, duration(row.seconds), *moved, row.reason or headline(row.metrics)


def _health(health: Health | None) -> str:
    """Write what people ask for first, then what is wrong."""
    if health is None:
        return ""
    known = [
        "" if health.temperature_c is None else f"{health.temperature_c:.0f} °C",
        "" if health.memory_free_bytes is None else f"{size(health.memory_free_bytes)} memory",
        "" if health.disk_free_bytes is None else f"{size(health.disk_free_bytes)} disk",
    ]
    wrong = "; ".join(text for notice, text in ailments(health) if notice not in {Notice.HOT, Notice.SITTING_OUT})
    return ", ".join(filter(None, known)) + (f": {wrong}" if wrong else "")


def _outcome(row: RoundRow) -> str:
    if row.reason:
        return f"void: {row.reason}"
    return f"{row.phase}, {len(row.reported)} of {len(row.invited)} devices, {duration(row.seconds)}"
