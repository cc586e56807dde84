"""`python -m tests.faults`: the table of faults behind `make faults`."""

import shutil
import signal
import time
from pathlib import Path

import click
import msgspec

from common.command import console


@click.command()
@click.argument("what", type=click.Choice(["table", "soak", "plants"]), default="table")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/faults"), show_default=True)
@click.option("--rows", "numbers", default="", help="Numbers of rows, as 1,2,7; all by default.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the first injection.")
@click.option("--injections", type=click.IntRange(1), default=20, show_default=True, help="A row, with a seed each.")
@click.option("--short", is_flag=True, help="One or two injections a row, chosen to be quick.")
@click.option("--brokers", "kinds", help="As embedded,aedes,nats: beside Mosquitto; all of them with all rows.")
@click.option("--lanes", type=click.IntRange(1, 16), default=3, show_default=True, help="Federations at a time.")
def main(  # noqa: PLR0917 - one an option
    what: str, folder: Path, numbers: str, seed: int, injections: int, short: bool, kinds: str | None, lanes: int
) -> None:
    """Inject faults into federations of real processes and hold every round against the undisturbed one.

    `soak` runs 200 rounds and looks at what grows, `plants` shows that planted bugs are found.
    """
    if what != "table":
        raise SystemExit(_endure(folder) if what == "soak" else _plant(folder))
    from tests.faults import campaign, report
    from tests.faults.brokers import absence
    from tests.faults.table import OUT_OF_REACH, ROWS

    chosen = numbers.split(",") if numbers else list(map(str, ROWS))
    if unknown := [number for number in chosen if number not in map(str, ROWS)]:
        raise click.BadParameter(f"no row {', '.join(unknown)}; there are {', '.join(map(str, ROWS))}")
    rows = [ROWS[int(number)] for number in chosen]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out, began = console(), time.monotonic()
    found, path = campaign.Found(), folder / "report.json"
    signal.signal(signal.SIGTERM, _on_sigterm)
    seeds = None if short else range(seed, seed + injections)
    asked = kinds if kinds is not None else "" if numbers else "embedded,aedes,nats"
    matrix = {kind: absence(kind) for kind in asked.split(",") if kind}
    present = [kind for kind, missing in matrix.items() if not missing]
    units = [*campaign.units(rows, seeds, folder), *campaign.matrix(present, rows, seeds, folder)]
    for part in campaign.run(units, lanes):
        found.injections += part.injections
        found.undisturbed += part.undisturbed
        for injection in part.injections:
            out.print(injection.sentence)
        # After every part, so that who interrupts it keeps what was found.
        result = report.summarise(rows, found.injections, found.undisturbed, time.monotonic() - began, matrix)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    out.print(report.table_of(result))
    for missing in (*filter(None, matrix.values()), *(f"row {number} needs root" for number in OUT_OF_REACH)):
        out.print(f"skipped: {missing}")
    out.print(f"{len(found.injections)} injections in {result.seconds:.0f} s; {path}")
    if not result.all_survived:
        raise SystemExit(70)


def _endure(folder: Path) -> int:
    """Run the soak; writes `soak.json`, returns the exit code."""
    from tests.faults.soak import soak

    out = console()
    shutil.rmtree(folder / "soak", ignore_errors=True)
    found = soak(folder, tell=out.print)
    (folder / "soak.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    for one in found.processes:
        first, last = one.first, one.last
        out.print(f"{one.process}: {first.memory_mb:.1f} to {last.memory_mb:.1f} MB ({one.share:+.1%})")
        for what in ("threads", "sockets", "files"):
            if getattr(first, what) != getattr(last, what):
                out.print(f"{one.process}: {getattr(first, what):g} to {getattr(last, what):g} {what}")
    out.print(f"{found.rounds} rounds in {found.seconds:.0f} s; {folder / 'soak.json'}")
    return 0 if all(one.is_steady for one in found.processes) else 70


def _plant(folder: Path) -> int:
    """Plant every bug; returns the exit code."""
    from tests.faults import plants

    out, is_all = console(), True
    for number in range(len(plants.PLANTS)):
        shutil.rmtree(folder / f"plant-{number}", ignore_errors=True)
    for name, where, shown in plants.check(folder):
        is_all = is_all and bool(shown)
        out.print(f"{name}: {where}: {shown[0] if shown else 'NOT FOUND'}")
    return 0 if is_all else 70


def _on_sigterm(*_: object) -> None:
    """End as Ctrl+C does, and leave no process behind."""
    from tests.faults import campaign

    campaign.interrupt()
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(prog_name="fedpi-faults")
