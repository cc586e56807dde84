"""The live view: a picture of the federation, drawn for a terminal of 80 columns or more."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from common.command import printable
from coordinator.watching import DevicePicture, Picture
from coordinator.wording import count, styled

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.table import Table
    from rich.text import Text

    from coordinator.spectator import Glimpse

LEAST_EVENTS = 5
MOST_EVENTS = 10
RELEASE_WIDTH = 16
FRAME_ROWS = 9
"""Rows that are neither devices nor events."""


def draw(picture: Picture, rows: int) -> "Group":
    """Draw the picture on a screen of `rows` rows: what does not fit is counted, not scrolled."""
    from rich.console import Group
    from rich.text import Text

    room = max(rows - FRAME_ROWS - LEAST_EVENTS, 1)
    drawn = min(len(picture.devices), room)
    events = min(MOST_EVENTS, max(rows - FRAME_ROWS - drawn, LEAST_EVENTS))
    where = picture.round.text if picture.round else "No round was heard of yet."
    return Group(
        _head(picture),
        _line(where, "bold"),
        _devices(list(picture.devices.values())[:room], len(picture.devices) - drawn),
        _events(picture, events),
        Text(),
        _line(_foot(picture), "dim"),
    )


def show(glimpses: Iterable["Glimpse"], console: "Console") -> None:
    """Draw glimpse after glimpse until they end."""
    from rich.live import Live

    with Live(console=console, screen=True, refresh_per_second=8) as live:
        for glimpse in glimpses:
            live.update(draw(glimpse.picture, console.height))


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
    return Columns(parts, padding=(0, 4))


def _devices(devices: list[DevicePicture], hidden: int) -> "Table":
    from rich import box
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table("device", "doing", "trained", "", "release", box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.columns[1].ratio = 1
    table.columns[4].max_width = RELEASE_WIDTH
    for device in devices:
        status, trained = device.status, device.trained
        is_here = status.state == "online"
        doing = status.doing if is_here else f"offline: {status.text}"
        table.add_row(
            Text(status.device, style="green" if is_here else "red"),
            _line(doing),
            "" if trained is None else ProgressBar(1.0, trained, width=12),
            "" if trained is None else f"{trained:4.0%}",
            _line(status.release),
        )
    if hidden:
        table.add_row("", _line(f"and {count(hidden, 'device')} more", "dim"))
    return table


def _events(picture: Picture, most: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table.grid("time", "event", padding=(0, 2))
    for at, sentence in picture.events[-most:]:
        clock = time.strftime("%H:%M:%S", time.localtime(at))
        table.add_row(Text(clock, style="dim"), _line(sentence))
    return table


def _foot(picture: Picture) -> str:
    problems = [f"broker: {picture.connection}"]
    if picture.malformed:
        problems.append(f"{count(picture.malformed, 'malformed message')} dropped")
    return " · ".join([*problems, "Ctrl+C ends this view only"])


def _line(text: str, style: str = "") -> "Text":
    """Text that peers may have written: no control characters, and never more than a row."""
    from rich.text import Text

    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")
