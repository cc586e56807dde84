"""The command line's side of `coordinator.dataset.split`: flags to options, report to tables."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from common.command import listed, table
from common.errors import UsageError
from coordinator.dataset.split import SplitOptions, SplitReport
from coordinator.wording import count

if TYPE_CHECKING:
    from rich.console import Console

COORDINATOR_SHARE = 0.6
SHOWN = 5
EVERY_S = 5.0
"""So often a line says how far the work is where there is no terminal."""


def read_options(*, sites: str, shares: str | None, unseen: float, labels: str, **others: Any) -> SplitOptions:
    """Read the flags; `others` are fields of SplitOptions. Raises ConfigError."""
    names = _site_names(sites)
    if not names:
        raise UsageError(f"--sites: {sites!r} names none; give their number or names, like 2 or ward1,ward2")
    label_names = listed(labels)
    if len(label_names) != 2:
        raise UsageError(f"--labels: {labels!r} is not of the form no,yes")
    return SplitOptions(
        shares=_shares(shares, names),
        unseen_share=unseen,
        sites=names,
        label_names=(label_names[0], label_names[1]),
        **others,
    )


@contextmanager
def progress(out: "Console", work: str) -> Iterator[Callable[[str], None]]:
    """Give a function that shows how far `work` is: a moving line on a terminal, elsewhere a line now and then."""
    told = time.monotonic()

    def tell(detail: str) -> None:
        nonlocal told
        status.update(f"{work}: {detail}")
        if not out.is_terminal and time.monotonic() - told >= EVERY_S:
            told = time.monotonic()
            out.print(f"{work}: {detail}")

    with out.status(work) as status:
        yield tell


def show(report: SplitReport, options: SplitOptions, console: "Console") -> None:
    """Print what was found, then which part got how much of it."""
    console.print(
        f"{count(report.files, 'image')}, {report.groups} of them different: "
        f"{report.exact_copies} exact and {report.near_copies} near copies, at most {report.largest_group} alike"
    )
    _list("skipped", report.skipped, console)
    _list("near copies with both labels", [" = ".join(names) for names in report.contradictions], console)
    columns = ("part", "images", *options.label_names, "different")
    rows = [(p.name, p.images, *(p.labels[name] for name in options.label_names), p.groups) for p in report.parts]
    console.print(table(columns, rows))


def _list(what: str, sentences: Sequence[str], console: "Console") -> None:
    for sentence in sentences[:SHOWN]:
        console.print(f"{what}: {sentence}", style="yellow")
    if len(sentences) > SHOWN:
        console.print(f"{what}: {len(sentences) - SHOWN} more, listed in split.json", style="yellow")


def _site_names(text: str) -> tuple[str, ...]:
    """A number of sites, which become rpi1, rpi2 and so on, or their names."""
    if text.isdigit():
        return tuple(f"rpi{place}" for place in range(1, int(text) + 1))
    return listed(text)


def _shares(text: str | None, sites: Sequence[str]) -> tuple[float, ...]:
    """Shares of any sum; by default the coordinator has 60 % and the sites the rest, evenly."""
    if text is None:
        return (COORDINATOR_SHARE, *((1 - COORDINATOR_SHARE) / len(sites) for _ in sites))
    try:
        numbers = [float(part) for part in listed(text)]
        return tuple(number / sum(numbers) for number in numbers)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"--shares: {text!r} is no list like 60,20,20") from error
