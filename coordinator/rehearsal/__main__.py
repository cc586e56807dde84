"""`python -m coordinator.rehearsal`: the demo and the benchmark behind `make demo` and `make bench`."""

import shutil
from pathlib import Path

import click

from common.command import PATH, Commands, console


@click.group(cls=Commands)
def main() -> None:
    """Rehearse whole federations on this machine."""


@main.command()
@click.option("--folder", type=PATH, default=Path("runs/demo"), show_default=True)
@click.option("--images", type=PATH, help="A folder with yes/ and no/; drawn slices by default.")
@click.option("--weights", help="Pretrained MobileNetV2 weights, or 'imagenet'; the small CNN by default.")
@click.option("--seed", default=0, show_default=True, help="Of the split and the training.")
def demo(folder: Path, images: Path | None, weights: str | None, seed: int) -> None:
    """Run a federation from images to predictions over MQTT."""
    from coordinator.rehearsal.demo import Demo
    from coordinator.rehearsal.summary import show_demo

    out = console()
    show_demo(Demo(folder, images, weights, seed, out).run(), folder, out)


@main.command()
@click.option("--folder", type=PATH, default=Path("runs/bench"), show_default=True)
@click.option("--devices", multiple=True, type=click.IntRange(0, 200), default=(2, 4, 10), show_default=True)
@click.option("--light", multiple=True, type=click.IntRange(0, 2000), default=(100, 200, 1000), show_default=True)
@click.option("--rounds", type=click.IntRange(1, 1000), default=10, show_default=True)
def bench(folder: Path, devices: tuple[int, ...], light: tuple[int, ...], rounds: int) -> None:
    """Measure rounds beside a bare loop of paho, then the coordinator alone with light devices. 0: none of them."""
    from coordinator.rehearsal.bench import Sizes
    from coordinator.rehearsal.bench import bench as measure
    from coordinator.rehearsal.summary import show_bench

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out = console()
    sizes = Sizes([count for count in devices if count], [count for count in light if count])
    show_bench(measure(folder, sizes, rounds, out.print), folder, out)


@main.command()
@click.option("--folder", type=PATH, default=Path("runs/aggregation"), show_default=True)
@click.option("--devices", type=click.IntRange(5, 1000), default=50, show_default=True)
@click.option("--strategy", "strategies", multiple=True, help="One of docs/strategies.md, repeatable [default: all]")
def aggregation(folder: Path, devices: int, strategies: tuple[str, ...]) -> None:
    """Measure every strategy over stored updates of 9.04 MB, beside reading them once."""
    from coordinator.rehearsal.aggregation import STRATEGIES, measure
    from coordinator.rehearsal.summary import show_aggregation

    shutil.rmtree(folder, ignore_errors=True)
    out = console()
    show_aggregation(measure(folder, devices, strategies or STRATEGIES, out.print), out)


@main.command()
@click.option("--images", type=PATH, help="A folder with yes/ and no/.")
@click.option("--weights", default="imagenet", show_default=True, help="Pretrained MobileNetV2 weights, or 'imagenet'.")
@click.option("--folder", type=PATH, help="Of the finished cells [default: runs/results]")
@click.option("--out", type=PATH, default=Path("docs"), show_default=True, help="Of results.md.")
@click.option("--quick", is_flag=True, help="A small comparison on drawn slices; all of it goes into the folder.")
def results(images: Path | None, weights: str, folder: Path | None, out: Path, quick: bool) -> None:
    """Compare federated training with central training, and each site alone. Goes on where it was interrupted."""
    from common.errors import ConfigError
    from coordinator.rehearsal.results import command, grid

    if quick:
        click.echo(command.run(command.quick_order(folder or Path("runs/results-quick"))))
        return
    if images is None or not images.is_dir():
        raise ConfigError("--images: name a folder that holds one folder a label, yes/ and no/; or give --quick")
    order = command.Order(grid.full(weights), images, folder or Path("runs/results"), out, "Results")
    click.echo(command.run(order))


if __name__ == "__main__":
    main(prog_name="fedpi-rehearsal")
