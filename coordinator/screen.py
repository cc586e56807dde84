"""The live view: a picture of the federation, drawn for a terminal of 80 columns or more."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from common.chronicle import MemberProgress, PastRound
from common.health import Health
from common.plain_text import printable
from coordinator.attention import attention
from coordinator.watching import DevicePicture, Picture
from coordinator.wording import count, duration, headline, size, sparkline, styled, telling

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.table import Table
    from rich.text import Text

    from coordinator.spectator import Glimpse

LEAST_DEVICES = 4
MOST_ROUNDS, MOST_NOTICES, MOST_EVENTS = 5, 6, 8
FRAME_ROWS = 6
"""Rows that are always there: two at the top, the devices' header, and below a gap, an event and the foot."""
WIDE = 100
NARROW_NAMES, WIDE_NAMES = 12, 32
ENDED = frozenset({"reported", "declined", "failed", "refused", "missing", "delivering"})


def draw(picture: Picture, rows: int, columns: int) -> "Group":
    """Draw the picture on a screen of `rows` by `columns`: what does not fit is counted, not scrolled."""
    from rich.console import Group
    from rich.text import Text

    notices = [f"{a.device}: {a.text}" if a.device else a.text for a in attention(picture)]
    past = picture.past.rounds if picture.past else ()
    least = min(len(picture.devices), LEAST_DEVICES)
    left = rows - FRAME_ROWS - least
    shown_notices, left = _room(len(notices), MOST_NOTICES, left, 1 / 3)
    shown_rounds, left = _room(len(past), MOST_ROUNDS, left - bool(past), 1 / 3)
    shown_events, left = _room(len(picture.events), MOST_EVENTS, left, 1 / 2)
    parts = [_head(picture), _round(picture), *_devices(picture, max(left, 0) + least, columns)]
    parts += [_line(f"⚠ {text}", "yellow") for text in _cut(notices, shown_notices)]
    if shown_rounds:
        parts += [_trend(past, columns), _rounds(past[-shown_rounds:])]
    parts += [Text(), *_events(picture, shown_events), _line(_foot(picture), "dim")]
    return Group(*parts)


def show(glimpses: Iterable["Glimpse"], console: "Console") -> None:
    """Draw glimpse after glimpse until they end."""
    from rich.live import Live

    with Live(console=console, screen=True, refresh_per_second=8) as live:
        for glimpse in glimpses:
            live.update(draw(glimpse.picture, console.height, console.width))


def _room(wanted: int, most: int, left: int, share: float) -> tuple[int, int]:
    """Take rows for a part of the screen, a share of those that are left or one; returns both numbers."""
    taken = min(wanted, most, max(int(left * share), 1), max(left, 0))
    return taken, left - taken


def _cut(lines: list[str], most: int) -> list[str]:
    if len(lines) <= most:
        return lines
    return [*lines[: most - 1], f"and {count(len(lines) - most + 1, 'notice')} more"] if most else []


def _head(picture: Picture) -> "RenderableType":
    from rich.columns import Columns
    from rich.text import Text

    state = picture.coordinator.state if picture.coordinator else "not heard of"
    release = picture.release.release if picture.release else "none"
    parts = [
        Text.assemble("federation ", (picture.federation, "bold")),
        Text.assemble("coordinator ", styled(state)),
        Text.assemble("release ", (printable(release), "bold")),
    ]
    return Columns(parts, padding=(0, 3))


def _round(picture: Picture) -> "Text":
    return _line(picture.round.text if picture.round else "No round was heard of yet.", "bold")


# ---- devices --------------------------------------------------------------------------------


def _devices(picture: Picture, room: int, columns: int) -> list["RenderableType"]:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, expand=True, padding=(0, 1, 0, 0))
    table.add_column("device", max_width=NARROW_NAMES if columns < WIDE else WIDE_NAMES, no_wrap=True)
    table.add_column("state", ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column("", width=8)
    for name in ("bytes", "examples", "seconds", "°C", "memory", "disk"):
        table.add_column(name, justify="right", no_wrap=True)
    if columns >= WIDE:
        for name in ("load", "clock", "release"):
            table.add_column(name, justify="right", no_wrap=True, max_width=18)
    members = {m.device: m for m in picture.members.members} if picture.members else {}
    devices = sorted(picture.devices.values(), key=lambda d: _urgency(d, members.get(d.status.device)))
    hidden = len(devices) - room + 1 if len(devices) > room else 0
    for device in devices[: len(devices) - hidden]:
        cells = _device_cells(device, members.get(device.status.device))
        table.add_row(*cells[: len(table.columns)])
    return [table, _line(f"and {count(hidden, 'device')} more", "dim")] if hidden else [table]


def _urgency(device: DevicePicture, member: MemberProgress | None) -> tuple[bool, str]:
    """Those first that a round waits for, then by name."""
    is_waited_for = member is not None and member.standing in {"invited", "accepted", "delivering"}
    return not is_waited_for, device.status.device


def _device_cells(device: DevicePicture, member: MemberProgress | None) -> list["RenderableType"]:
    from rich.text import Text

    status, is_here = device.status, device.status.state == "online"
    state = status.doing.partition(", round")[0] if is_here else "offline"
    if is_here and status.health is not None and status.health.unfit:
        state = "sits out"
    elif is_here and member is not None and member.standing in ENDED:
        state = member.standing
    delivered = member if member is not None and member.update_bytes else None
    return [
        Text(status.device, style="green" if is_here else "red", no_wrap=True, overflow="ellipsis"),
        _line(state, styled(state).style),
        _bar(device, member),
        size(delivered.received_bytes) if delivered else "",
        str(member.examples) if member and member.examples else "",
        f"{member.seconds:.1f}" if member and member.standing != "joined" else "",
        *_health_cells(status.health or Health()),
        _line(status.release),
    ]


def _bar(device: DevicePicture, member: MemberProgress | None) -> "RenderableType":
    """How far the training is, in blue; then how far the delivery is, in green."""
    from rich.progress_bar import ProgressBar

    if member is not None and member.update_bytes and member.standing in {"delivering", "reported"}:
        return ProgressBar(member.update_bytes, member.received_bytes, complete_style="green", finished_style="green")
    if device.trained is None:
        return ""
    return ProgressBar(1.0, device.trained, complete_style="blue", finished_style="blue")


def _health_cells(health: Health) -> list["RenderableType"]:
    from rich.text import Text

    is_hot = bool({"throttled", "under-voltage"} & {*(health.flags or ())})
    degrees = "" if health.temperature_c is None else f"{health.temperature_c:.0f}"
    clock = {True: "ok", False: "wrong", None: ""}[health.clock_synchronised]
    return [
        Text(degrees, style="red" if is_hot else ""),
        _gigabytes(health.memory_free_bytes),
        _gigabytes(health.disk_free_bytes),
        "" if health.load is None else f"{health.load:.2f}",
        clock,
    ]


def _gigabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e9:.1f} GB"


# ---- rounds and events ----------------------------------------------------------------------


def _trend(past: tuple[PastRound, ...], columns: int) -> "Text":
    """The course of the figures that say most, over the last rounds that are committed."""
    points = max((columns - 56) // 3, 4)  # what the words of three courses leave
    done = [row for row in past if row.phase == "committed"][-points:]
    if not done:
        return _line("no round is committed yet", "cyan")
    courses = {name: [r.metrics[name] for r in done if name in r.metrics] for name in telling(done[-1].metrics)[:2]}
    courses["seconds"] = [row.seconds for row in done]
    drawn = [f"{name} {sparkline(values)} {values[-1]:.4g}" for name, values in courses.items()]
    return _line(" · ".join(drawn), "cyan")


def _rounds(past: tuple[PastRound, ...]) -> "Table":
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    for justify in ("right", "left", "left", "right", "right", "right"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for row in past:
        moved = f"↓{size(row.bytes_down)}", f"↑{size(row.bytes_up)}"
        told = _line(row.reason or headline(row.metrics))
        reported = f"{row.reported} of {row.invited}"
        table.add_row(str(row.round), styled(row.phase), reported, duration(row.seconds), *moved, told)
    return table


def _events(picture: Picture, most: int) -> list["Text"]:
    if not picture.events:
        return [_line("nothing has happened yet", "dim")]
    lines = []
    for at, sentence in picture.events[-most:] if most else []:
        line = _line(f"{time.strftime('%H:%M:%S', time.localtime(at))}  {sentence}")
        line.stylize("dim", 0, 8)
        lines.append(line)
    return lines


def _foot(picture: Picture) -> str:
    problems = [f"broker: {picture.connection}"]
    if picture.malformed:
        problems.append(f"{count(picture.malformed, 'malformed message')} dropped")
    return " · ".join([*problems, "Ctrl+C ends this view only"])


def _line(text: str, style: object = "") -> "Text":
    """Text that peers may have written: no control characters, and never more than a row."""
    from rich.text import Text

    return Text(printable(text), style=str(style), no_wrap=True, overflow="ellipsis")
