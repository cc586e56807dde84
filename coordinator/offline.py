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


@click.command()
@click.argument("images", type=INPUT)
@click.option("--out", type=PATH, required=True, help="Folder for the label CSVs.")
@click.option("--sites", default="2", show_default=True, help="How many sites, or their names: lab,ward.")
@click.option("--shares", help="The coordinator's share, then each site's [default: 60 % and the rest evenly]")
@click.option("--unseen", default=0.4, show_default=True, help="Part of each site's images that is held back.")
@click.option("--labels", default="no,yes", show_default=True, help="The folders, the negative label first.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same split.")
@click.option(
    "--skew",
    type=click.Choice(["none", "labels", "quantity"]),
    default="none",
    show_default=True,
    help="What sites differ in.",
)
@click.option("--alpha", default=0.5, show_default=True, help="Of the skew: the smaller, the further they are apart.")
@click.option("--keep-twins/--part-twins", default=True, help="Whether near copies stay in one part.")
@click.option(
    "--layout",
    type=click.Choice(["csv", "folders"]),
    default="csv",
    show_default=True,
    help="CSVs only, or copies too: main_data.csv, data/main, data/SITE.",
)
@json_option
def split(images: Path, out: Path, as_json: bool, **flags: Any) -> None:
    """Make a federation out of one folder of images: a CSV for the coordinator and for every site.

    Near copies of an image stay in one part unless told otherwise; IMAGES holds one folder a label.
    """
    from common.extras import require

    require("splitting", "tools", "PIL", "imagehash")
    from coordinator import splitting
    from coordinator.dataset.split import split as write_split

    options = splitting.read_options(**flags)
    with splitting.progress(console(stderr=True), f"looking for near copies in {images}") as tell:
        report = write_split(images, out, options, tell)
    if as_json:
        print_json(report)
    else:
        splitting.show(report, options, console())
