"""`fedpi-device`: run the device, check its configuration, classify an image."""

import signal
import threading
from pathlib import Path

import click

from common.command import Commands, verbose_option

config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), required=True, help="The device's YAML file."
)


@click.group(cls=Commands)
@click.version_option(package_name="fedpi")
def main() -> None:
    """Take part in a federation: train on this machine's own images, serve the released model."""


@main.command()
@config_option
@verbose_option
def run(config_path: Path) -> None:
    """Run the device until it is stopped."""
    from device.config import read_config
    from device.daemon import Daemon
    from device.store import DeviceStore

    config = read_config(config_path)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Daemon(config, DeviceStore(config.folder)).serve(stop)
