"""Commands that work on files alone: no broker, no journal, no TensorFlow."""

from pathlib import Path
from typing import Any

import click

from common.command import INPUT, PATH, console, json_option, print_json


@click.command()
@click.argument("files", type=INPUT, nargs=-1, required=True)
@click.option("--out", type=PATH, required=True, help="The new global weights: like G, or .npz.")
@click.option("--global", "base", type=INPUT, help="The global weights G that FILES were trained from.")
@click.option("--strategy", "name", default="fedavg", show_default=True, help="See docs/strategies.md.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the strategy.")
@click.option("--examples", help="Of each file, for strategies that weigh by them: 60,30 [default: all alike]")
@click.option(
    "--shared-only",
    "is_shared_only",
    is_flag=True,
    help="Leave out tensors that G does not have, instead of refusing a file.",
)
@click.option("--moments", type=PATH, help="Where a server optimiser keeps its moments until the next call.")
@json_option
def aggregate(files: tuple[Path, ...], out: Path, as_json: bool, **flags: Any) -> None:
    """Aggregate the weights of FILES (.weights.h5, .h5, .keras, .npz) as a live round does.

    Tensors are matched by name. FILES count in the order given; live rounds sort by device.
    """
    from coordinator import aggregating

    report = aggregating.run(aggregating.read_task(files, **flags), out)
    if as_json:
        print_json(report)
    else:
        aggregating.show(report, console())
