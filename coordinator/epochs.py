"""`fedpi-coordinator raise-epoch`: for devices that once heard the coordinator sign with a clock in the future."""

from pathlib import Path

import click

from common.command import config_option_of


@click.command("raise-epoch")
@click.argument("heard", metavar="EPOCH", type=int)
@config_option_of("coordinator")
def raise_epoch(heard: int, config_path: Path) -> None:
    """Sign from above EPOCH on, from the next start.

    For a coordinator that once ran with a clock in the future and lost its state: devices refuse it as "replayed",
    and their log names the epoch that they heard, the number before the dot.
    """
    from common import epochs
    from common.errors import ConfigError
    from common.files import make_folder
    from coordinator.config import read_config

    config = read_config(config_path)
    if config.signing is None:
        raise ConfigError(f"{config_path}: nothing is signed here, so no device remembers an epoch")
    make_folder(config.folder)
    epochs.raise_epoch(config.folder / "epoch", heard)
    click.echo(f"The next start signs with an epoch above {heard}: systemctl restart fedpi-coordinator")
