"""`python -m tests.faults`: the table of faults behind `make faults`."""

import shutil
import signal
import time
from pathlib import Path

import click
import msgspec

from common.command import console


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("runs/faults"), show_default=True)
@click.option("--rows", "numbers", default="", help="Numbers of rows, as 1,2,7; all by default.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the first injection.")
@click.option("--injections", type=click.IntRange(1), default=20, show_default=True, help="A row, with a seed each.")
@click.option("--short", is_flag=True, help="One or two injections a row, chosen to be quick.")
@click.option("--lanes", type=click.IntRange(1, 16), default=3, show_default=True, help="Federations at a time.")
def main(  # noqa: PLR0917 - one an option
    folder: Path, numbers: str, seed: int, injections: int, short: bool, lanes: int
) -> None:
    """Inject faults into federations of real processes and hold every round against the undisturbed one."""
    from tests.faults import campaign, report
    from tests.faults.table import ROWS

    chosen = numbers.split(",") if numbers else list(map(str, ROWS))
    if unknown := [number for number in chosen if number not in map(str, ROWS)]:
        raise click.BadParameter(f"no row {', '.join(unknown)}; there are {', '.join(map(str, ROWS))}")
    rows = [ROWS[int(number)] for number in chosen]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out, began = console(), time.monotonic()
    found = campaign.Found()
    signal.signal(signal.SIGTERM, _on_sigterm)
    seeds = None if short else range(seed, seed + injections)
    for part in campaign.run(campaign.units(rows, seeds, folder), lanes):
        found.injections += part.injections
        found.undisturbed += part.undisturbed
        for injection in part.injections:
            verdict = "survived" if injection.survived else f"NOT SURVIVED, replay with: {injection.replay}:"
            out.print(f"row {injection.row} seed {injection.seed}: {verdict} {injection.note}")
    result = report.summarise(rows, found.injections, found.undisturbed, time.monotonic() - began)
    path = folder / "report.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    out.print(report.table_of(result))
    out.print(f"{len(found.injections)} injections in {result.seconds:.0f} s; {path}")
    if not result.all_survived:
        raise SystemExit(70)


def _on_sigterm(*_: object) -> None:
    """End as Ctrl+C does, and leave no process behind."""
    from tests.faults import campaign

    campaign.interrupt()
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(prog_name="fedpi-faults")
