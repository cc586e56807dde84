"""`fedpi-coordinator`: serve a federation, start rounds, look at what became of them."""

import fcntl
import signal
import threading
from pathlib import Path

import click

from common.command import Commands, verbose_option

config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), required=True, help="The coordinator's YAML file."
)


@click.group(cls=Commands)
@click.version_option(package_name="fedpi")
def main() -> None:
    """Run federated rounds over MQTT, and see what became of them."""


@main.command()
@config_option
@verbose_option
def serve(config_path: Path) -> None:
    """Serve the federation until stopped. Rounds begin when `start` asks for them."""
    from common.blobs import BlobStore
    from common.errors import ConfigError
    from coordinator.config import read_config
    from coordinator.initial import make_initial
    from coordinator.service import Service
    from coordinator.store import Store

    config = read_config(config_path)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    config.folder.mkdir(parents=True, exist_ok=True)
    with (config.folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"another coordinator runs on {config.folder}; stop it, or name another 'state'"
            ) from error
        store, blobs = Store(config.journal, create=True), BlobStore(config.folder / "models")
        if store.global_model() is None:
            store.set_global_model(make_initial(config_path, config, blobs))
        Service(config, store, blobs).serve(stop)


@main.command()
@config_option
@click.option("--rounds", type=click.IntRange(1, 100_000), default=1, show_default=True)
def start(config_path: Path, rounds: int) -> None:
    """Ask for rounds."""
    from coordinator.config import read_config
    from coordinator.store import Store

    config = read_config(config_path)
    store = Store(config.journal)
    click.echo(store.ask_for(rounds))
