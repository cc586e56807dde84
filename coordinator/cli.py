"""`fedpi-coordinator`: serve a federation, start rounds, look at what became of them."""

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.command import (
    INPUT,
    PATH,
    Commands,
    config_option_of,
    console,
    init_command,
    json_option,
    print_json,
    verbose_option,
    version_option,
)
from common.learning.commands import train
from common.plain_text import printable
from common.stopping import stop_on
from coordinator.epochs import raise_epoch
from coordinator.experiments import evaluate, plot
from coordinator.offline import aggregate, split

if TYPE_CHECKING:
    from coordinator.config import CoordinatorConfig
    from coordinator.store import Store

config_option = config_option_of("coordinator")

SHOWN_ROUNDS = 20


@click.group(cls=Commands)
@version_option
def main() -> None:
    """Run federated rounds over MQTT, and see what became of them."""


for _command in (init_command("coordinator"), train, evaluate, plot, aggregate, split, raise_epoch):
    main.add_command(_command)


@main.command()
@config_option
@click.option(
    "--take-over", is_flag=True, help="End another coordinator that serves the federation, and take its place."
)
@verbose_option
def serve(config_path: Path, take_over: bool) -> None:
    """Serve the federation until stopped. Rounds begin when `start` asks for them.

    Exit code 78 where another coordinator serves the federation already, or has taken over.
    """
    from common.blobs import BlobStore
    from common.tls import context
    from coordinator import patience
    from coordinator.config import read_config
    from coordinator.descriptors import raise_limit
    from coordinator.initial import make_initial
    from coordinator.lock import serving
    from coordinator.metrics import exposed
    from coordinator.opening import make_journal

    config = read_config(config_path)
    if config.broker.tls is not None:
        context(config.broker.tls)  # said before the initial model is trained, which may take minutes
    stop = stop_on(signal.SIGTERM, signal.SIGINT)
    raise_limit()
    with serving(config.folder):
        store, blobs = make_journal(config), BlobStore(config.global_models)
        if store.global_model() is None:
            if (model := make_initial(config_path, config, blobs, stop)) is None:
                return
            store.set_global_model(model)
        with exposed(config.metrics, config.journal, config.federation, config.broker.tls):
            patience.serve(config, store, blobs, stop, takes_over=take_over)


@main.command()
@config_option
@click.option("--rounds", type=click.IntRange(1, 100_000), default=1, show_default=True, help="How many.")
@click.option("--detach", is_flag=True, help="Return at once; `rounds` tells what became of them.")
@json_option
def start(config_path: Path, rounds: int, detach: bool, as_json: bool) -> None:
    """Ask the running coordinator for rounds, and show their progress.

    Exit code 0: every round is committed; 70: one or more are void, or the run was stopped.
    """
    from coordinator import following
    from coordinator.views import rounds_table

    config, store = _open(config_path)
    number = store.ask_for(rounds)
    messages = console(stderr=True)
    if detach:
        _report_detached(config, number, as_json)
        return
    try:
        end = following.show(following.follow(store, config.folder, number), messages)
    except KeyboardInterrupt:
        messages.print(f"Run {number} goes on; stop it with: fedpi-coordinator stop --config {config_path}")
        raise
    if as_json:
        print_json({"run": end.run, "rounds": end.closed})
    else:
        console().print(rounds_table(end.closed))
    following.judge(end, [entry for row in end.void for entry in store.ledger(row.round)])


def _report_detached(config: "CoordinatorConfig", number: int, as_json: bool) -> None:
    from coordinator.lock import is_served

    if as_json:
        print_json({"run": number, "is_served": is_served(config.folder)})
    else:
        until = "" if is_served(config.folder) else " until a coordinator is served"
        click.echo(f"Run {number} is queued{until}.")


@main.command()
@config_option
@click.option("--now", is_flag=True, help="End the open round at once, which makes it void, instead of finishing it.")
@json_option
def stop(config_path: Path, now: bool, as_json: bool) -> None:
    """End every run that was asked for, after the open round or at once."""
    from coordinator.lock import is_served
    from coordinator.wording import count

    config, store = _open(config_path)
    runs, found, has_coordinator = store.stop_runs(now=now), store.open_round(), is_served(config.folder)
    if as_json:
        print_json({"runs": runs, "round": found[0].number if found else None, "is_served": has_coordinator})
        return
    sentence = f"Stopping {count(runs, 'run')}." if runs else "There is no run to stop."
    if runs and found:
        sentence += f" Round {found[0].number} is {'void' if now else 'finished first'}"
        sentence += "." if has_coordinator else ", once a coordinator is served."
    click.echo(sentence)


@main.command()
@config_option
@json_option
def status(config_path: Path, as_json: bool) -> None:
    """Show where the federation stands."""
    from coordinator import views
    from coordinator.lock import is_served

    config, store = _open(config_path)
    view = views.status(store, config.federation, is_served=is_served(config.folder))
    if as_json:
        print_json(view)
    else:
        views.show_status(view, console())


@main.command()
@config_option
@json_option
def devices(config_path: Path, as_json: bool) -> None:
    """List every device that the coordinator ever heard of."""
    from coordinator import views
    from coordinator.lock import is_served

    config, store = _open(config_path)
    found = views.devices(store)
    if as_json:
        print_json(found)
        return
    console().print(views.devices_table(found))
    if not is_served(config.folder):
        console(stderr=True).print("No coordinator is running: this is what was last heard.", style="yellow")


@main.command()
@config_option
@click.option("--round", "number", type=click.IntRange(1), help="What became of every device in this round.")
@click.option("--all", "is_all", is_flag=True, help=f"Every round, not only the last {SHOWN_ROUNDS}.")
@json_option
def rounds(config_path: Path, number: int | None, is_all: bool, as_json: bool) -> None:
    """Show the ledger: the last rounds, or one round device by device."""
    from coordinator import views
    from coordinator.wording import count

    _, store = _open(config_path)
    if number is not None:
        view = views.one_round(store, number)
        if as_json:
            print_json(view)
        else:
            views.show_round(view, console())
        return
    found = store.rounds(last=None if is_all else SHOWN_ROUNDS)
    if as_json:
        print_json(found)
    else:
        console().print(views.rounds_table(found))
    if hidden := store.count_rounds() - len(found):
        console(stderr=True).print(f"{count(hidden, 'earlier round')} not shown: --all shows all.")


@main.command()
@config_option
@click.option("--keep", type=click.IntRange(1), required=True, metavar="N", help="How many of the newest rounds stay.")
@json_option
def prune(config_path: Path, keep: int, as_json: bool) -> None:
    """Delete old rounds from the journal, also while the coordinator runs.

    Kept are the N newest, an open round, a run that is not over, and the rounds of the global model, the best model and
    every release. Models, releases and devices stay.
    """
    from coordinator import pruning
    from coordinator.wording import count, size

    _, store = _open(config_path)
    done = pruning.prune(store, keep)
    if as_json:
        print_json(done)
        return
    sizes = f"{size(done.bytes_before)} before, {size(done.bytes_after)} now"
    click.echo(f"Deleted {count(done.deleted, 'round')}, {done.left} are left; the journal: {sizes}.")
    if not done.is_shrunk:
        click.echo("The disk has no room to make the file smaller; free some and prune again.", err=True)


@main.command()
@click.argument("name")
@config_option
@json_option
def forget(name: str, config_path: Path, as_json: bool) -> None:
    """Take the device NAME out of `devices`, the metrics, the broker and Home Assistant. Its rounds stay.

    For a device that is gone for good: revoke it first (fedpi-broker revoke). One that comes back is known again.
    """
    from common.errors import UsageError
    from coordinator.lock import is_served

    config, store = _open(config_path)
    before = {row.device: row for row in store.devices()}
    if not store.forget(name):
        raise UsageError(f"no device {name} is known; known are: {', '.join(before) or 'none'}")
    has_coordinator = is_served(config.folder)
    if as_json:
        print_json({"device": name, "was": before[name].state, "is_served": has_coordinator})
        return
    until = "" if has_coordinator else " Its documents leave the broker once a coordinator is served."
    click.echo(f"{name} is forgotten.{until}")
    if before[name].state == "online":
        click.echo(f"{name} was connected: it will be known again as soon as it says something.", err=True)


@main.command()
@config_option
@click.option("--seconds", type=click.FloatRange(0, min_open=True), help="End by itself after so many seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print every message as one line of JSON.")
def watch(config_path: Path, seconds: float | None, as_json: bool) -> None:
    """Watch the federation live, over MQTT."""
    import msgspec

    from common.config import load
    from coordinator.config import WatchConfig
    from coordinator.spectator import spectate

    glimpses = spectate(load(config_path, WatchConfig), seconds)
    out = console()
    if out.is_terminal and not as_json:
        from coordinator.screen import show

        show(glimpses, out)
        return
    for glimpse in glimpses:
        if as_json and glimpse.document is not None:
            click.echo(msgspec.json.encode({"topic": glimpse.topic, "document": glimpse.document}))
        elif glimpse.sentence:
            is_aside = as_json  # what is not a message would break the stream
            click.echo(f"{time.strftime('%H:%M:%S')} {printable(glimpse.sentence)}", err=is_aside)


@main.command()
@click.argument("bundle", type=INPUT)
@click.option("--config-folder", type=PATH, default="/etc/fedpi", show_default=True)
def join(bundle: Path, config_folder: Path) -> None:
    """Install BUNDLE, the file that `fedpi-broker enroll monitor` made: what `watch` needs on any machine."""
    from coordinator.joining import join as install

    config = install(bundle, config_folder)
    click.echo(f"Delete {bundle}: it holds the keys. Next: fedpi-coordinator watch --config {config}")


@main.command()
@config_option
@click.option("--out", "folder", type=PATH, help="Folder to write into [default: STATE/export]")
@click.option("--release", "is_release", is_flag=True, help="Make it the model that every device serves.")
@click.option("--best", "is_best", is_flag=True, help="Not the newest, but the best by the metric `best_by`.")
@click.option(
    "--variant",
    type=click.Choice(["float32", "float16", "dynamic", "int8"]),
    default="float32",
    show_default=True,
    help="What model.tflite stores and computes in.",
)
@json_option
def export(config_path: Path, folder: Path | None, is_release: bool, as_json: bool, **flags: Any) -> None:
    """Write the global model as model.tflite and model.keras."""
    from common.blobs import BlobStore
    from common.learning.seam import build
    from coordinator import exporting

    config, store = _open(config_path)
    with console(stderr=True).status("building the model") as progress:
        learner = build(config.model, config.models)
        model = exporting.read_global(store, BlobStore(config.global_models), learner, is_best=flags["is_best"])
        exported = exporting.export(learner, model, config.data, folder or config.folder / "export", progress.update)
        if flags["variant"] != "float32":
            progress.update("quantising")
            exported = exporting.convert(exported, learner, model, config.data, flags["variant"])
    if is_release:
        exported = exporting.publish(exported, model, config, store)
    if as_json:
        print_json(exported)
    else:
        exporting.show(exported, console())


def _open(config_path: Path) -> "tuple[CoordinatorConfig, Store]":
    """Open the journal of a coordinator that was served before."""
    from coordinator.config import read_config
    from coordinator.opening import open_journal

    config = read_config(config_path)
    return config, open_journal(config)
