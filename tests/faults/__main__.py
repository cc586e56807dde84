"""`python -m tests.faults`: the table of faults behind `make faults`."""

import shutil
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import msgspec

from common.command import console

if TYPE_CHECKING:
    from tests.faults.row import Row

REPORT, SOAKED = "report.json", "soak.json"
FOLDERS = {False: Path("runs/faults"), True: Path("runs/faults-signed")}
"""Where a run leaves its report, unless it is told otherwise: by whether messages were signed."""
PAGE = Path("docs/faults.md")
FAILED = 70
"""The exit code where something grows, or a planted bug is not found."""


@click.command()
@click.argument("what", type=click.Choice(["table", "soak", "plants", "document"]), default="table")
@click.option("--folder", type=click.Path(path_type=Path), help="runs/faults or runs/faults-signed by default.")
@click.option("--rows", "numbers", default="", help="Numbers of rows, as 1,2,7; all by default.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the first injection.")
@click.option("--injections", type=click.IntRange(1), default=20, show_default=True, help="A row, with a seed each.")
@click.option("--short", is_flag=True, help="One or two injections a row, chosen to be quick.")
@click.option("--brokers", "kinds", help="As embedded,aedes,nats: beside Mosquitto; all of them with all rows.")
@click.option("--lanes", type=click.IntRange(1, 16), default=3, show_default=True, help="Federations at a time.")
@click.option("--signed", is_flag=True, help="Coordinator and devices sign.")
def main(  # noqa: PLR0917 - one an option
    what: str,
    folder: Path | None,
    numbers: str,
    seed: int,
    injections: int,
    short: bool,
    kinds: str | None,
    lanes: int,
    signed: bool,
) -> None:
    """Inject faults into federations of real processes and hold every round against the undisturbed one.

    `soak` runs 200 rounds and looks at what grows, `plants` shows that planted bugs are found, `document` writes the
    figures of the last tables, signed and not, into docs/faults.md.
    """
    from tests.faults.table import ROWS

    if what == "document":
        raise SystemExit(_document(FOLDERS.values() if folder is None else [folder]))
    folder = folder or FOLDERS[signed]
    if what == "table":
        chosen = numbers.split(",") if numbers else list(map(str, ROWS))
        if unknown := [number for number in chosen if number not in map(str, ROWS)]:
            raise click.BadParameter(f"no row {', '.join(unknown)}; there are {', '.join(map(str, ROWS))}")
        asked = kinds if kinds is not None else "" if numbers else "embedded,aedes,nats"
        seeds = None if short else range(seed, seed + injections)
        rows, is_whole = [ROWS[int(number)] for number in chosen], not numbers and not short
        raise SystemExit(_tabulate(folder, _Run(rows, seeds, asked.split(","), is_whole, signed), lanes))
    if what == "soak":
        raise SystemExit(_endure(folder, is_signed=signed))
    raise SystemExit(_plant(folder))


class _Run(NamedTuple):
    """What a table is made of; the whole one ends with 200 rounds."""

    rows: Sequence["Row"]
    seeds: range | None
    brokers: Sequence[str]
    is_whole: bool
    is_signed: bool


def _tabulate(folder: Path, run: _Run, lanes: int) -> int:
    """Run the rows; writes `report.json`, returns the exit code."""
    from tests.faults import campaign, report
    from tests.faults.brokers import absence
    from tests.faults.soak import Soak

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out, began = console(), time.monotonic()
    found, path = campaign.Found(), folder / REPORT
    signal.signal(signal.SIGTERM, _on_sigterm)
    matrix = {kind: absence(kind) for kind in run.brokers if kind}
    present = [kind for kind, missing in matrix.items() if not missing]
    units = [*campaign.units(run.rows, run.seeds, folder), *campaign.matrix(present, run.rows, run.seeds, folder)]
    for part in campaign.run([replace(unit, is_signed=run.is_signed) for unit in units], lanes):
        found.injections += part.injections
        found.undisturbed += part.undisturbed
        for injection in part.injections:
            out.print(injection.sentence)
        # After every part, so that who interrupts it keeps what was found.
        result = report.summarise(run.rows, found.injections, found.undisturbed, time.monotonic() - began, matrix)
        result = msgspec.structs.replace(result, is_signed=run.is_signed)
        _write(path, result)
    out.print(report.table_of(result))
    for missing in result.skipped:
        out.print(f"skipped: {missing}")
    out.print(f"{len(found.injections)} injections in {result.seconds:.0f} s; {path}")
    failed = report.exit_code(result)
    if run.is_whole:
        failed = _endure(folder, is_signed=run.is_signed) or failed
        soaked = msgspec.json.decode((folder / SOAKED).read_bytes(), type=Soak)
        _write(path, msgspec.structs.replace(result, soak=soaked, seconds=time.monotonic() - began))
    return failed


def _endure(folder: Path, *, is_signed: bool) -> int:
    """Run the soak; writes `soak.json`, returns the exit code."""
    from tests.faults.soak import soak

    out = console()
    shutil.rmtree(folder / "soak", ignore_errors=True)
    found = soak(folder, tell=out.print, is_signed=is_signed)
    _write(folder / SOAKED, found)
    for one in found.processes:
        first, last = one.first, one.last
        out.print(f"{one.process}: {first.memory_mb:.1f} to {last.memory_mb:.1f} MB ({one.share:+.1%})")
        for what in ("threads", "sockets", "files"):
            if getattr(first, what) != getattr(last, what):
                out.print(f"{one.process}: {getattr(first, what):g} to {getattr(last, what):g} {what}")
    out.print(f"{found.rounds} rounds in {found.seconds:.0f} s; {folder / SOAKED}")
    return 0 if all(one.is_steady for one in found.processes) else FAILED


def _write(path: Path, found: msgspec.Struct) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found)))


def _document(folders: Iterable[Path]) -> int:
    """Write the figures of the last reports, as far as there are any, into the documentation; returns the exit code."""
    from tests.faults import document
    from tests.faults.report import Report

    for path in (folder / REPORT for folder in folders):
        if path.exists():
            document.write(PAGE, msgspec.json.decode(path.read_bytes(), type=Report))
            console().print(f"wrote the figures of {path} into {PAGE}")
    return 0


def _plant(folder: Path) -> int:
    """Plant every bug; returns the exit code."""
    from tests.faults import plants

    out, is_all = console(), True
    for number in range(len(plants.PLANTS)):
        shutil.rmtree(folder / f"plant-{number}", ignore_errors=True)
    for name, where, shown in plants.check(folder):
        is_all = is_all and bool(shown)
        out.print(f"{name}: {where}: {shown[0] if shown else 'NOT FOUND'}")
    return 0 if is_all else FAILED


def _on_sigterm(*_: object) -> None:
    """End as Ctrl+C does, and leave no process behind."""
    from tests.faults import campaign

    campaign.interrupt()
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(prog_name="fedpi-faults")
