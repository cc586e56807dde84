"""`fedpi-device`: run the device, serve its release, check its configuration, classify images."""

import signal
import sys
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
    table,
    verbose_option,
    version_option,
)
from common.errors import DataError
from common.learning.commands import evaluate, export, train
from common.stopping import stop_on

if TYPE_CHECKING:
    from device.config import DeviceConfig
    from device.inference import Classifier

config_option = config_option_of("device")


@click.group(cls=Commands)
@version_option
def main() -> None:
    """Take part in a federation: train on this machine's own images, serve the released model."""


for _command in (init_command("device"), train, evaluate, export):
    main.add_command(_command)


@main.command()
@config_option
@click.option("--no-serving", is_flag=True, help="Leave serving to `serve`, whatever serving.process says.")
@verbose_option
def run(config_path: Path, no_serving: bool) -> None:
    """Run the device until it is stopped."""
    import msgspec

    from device.config import read_config
    from device.daemon import Daemon
    from device.store import DeviceStore, hold

    config = read_config(config_path)
    if no_serving:
        config = msgspec.structs.replace(config, serving=msgspec.structs.replace(config.serving, process="off"))
    with hold(config.folder / "lock", "another device process runs"):
        Daemon(config, DeviceStore(config.folder)).serve(stop_on(signal.SIGTERM, signal.SIGINT))


@main.command()
@config_option
@verbose_option
def serve(config_path: Path) -> None:
    """Serve the installed release over MQTT until stopped.

    For a service of its own, which goes on while `run` trains, restarts or crashes: set
    serving.process to 'off', so that `run` does not start one as well.
    """
    from device import serving
    from device.config import read_config

    serving.serve(read_config(config_path), stop_on(signal.SIGTERM, signal.SIGINT))


@main.command()
@config_option
@json_option
def check(config_path: Path, as_json: bool) -> None:
    """Check configuration, images, models, broker and what is installed.

    The exit code is 0, or that of the first check that fails.
    """
    from device.check import examine

    with console(stderr=True).status("checking"):
        findings = examine(config_path)
    if as_json:
        print_json(findings)
    else:
        console().print(table(("check", "", "found"), [(f.check, f.standing, f.text) for f in findings]))
        for finding in findings:
            for detail in finding.details:
                console().print(f"{finding.check}: {detail}")
    sys.exit(next((finding.exit_code for finding in findings if finding.exit_code), 0))


@main.command()
@click.argument("bundle", type=INPUT)
@click.option(
    "--config-folder",
    type=PATH,
    default="/etc/fedpi",
    show_default=True,
    help="Where to install.",
)
def join(bundle: Path, config_folder: Path) -> None:
    """Install BUNDLE, the file that `fedpi-broker enroll` made: identity and configuration of this device."""
    from device.joining import join as install

    joined = install(bundle, config_folder)
    name, federation = joined.bundle.name, joined.bundle.federation
    if joined.is_renewal:
        console().print(f"{name} of federation {federation} has its new certificate, in {joined.folder}.")
        return
    console().print(f"This is {name} of federation {federation} now: {joined.config}, keys in {joined.folder}.")
    console().print(f"Delete {bundle}: it holds the keys. Next: fedpi-device check --config {joined.config}")


@main.command()
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=PATH)
@config_option
@click.option("--model", type=PATH, help="A TFLite file to use instead of the installed release.")
@json_option
def infer(images: tuple[Path, ...], config_path: Path, model: Path | None, as_json: bool) -> None:
    """Classify images with the installed release. Needs neither a broker nor a running device.

    An image that cannot be decoded gets a row that says so, and the exit code is 65.
    """
    from device.config import read_config

    classifier = _open(read_config(config_path), model)
    rows = [_classify(classifier, image) for image in images]
    if as_json:
        print_json(rows)
    else:
        columns = ("file", "label", f"probability of {classifier.positive}", "milliseconds", "release")
        console().print(table(columns, [_cells(row) for row in rows]))
    if not all(row["ok"] for row in rows):
        sys.exit(DataError.exit_code)


def _open(config: "DeviceConfig", model: Path | None) -> "Classifier":
    from common.verified import read_verified
    from device.inference import Classifier
    from device.store import current_release

    if model is not None:
        try:
            content = model.read_bytes()
        except OSError as error:
            raise DataError(f"{model}: cannot read the model: {error.strerror}") from error
        return Classifier(model.name, content, config.data.label_names, config.serving.threads)
    release = current_release(config.folder)
    if release is None:
        raise DataError(f"no release is installed in {config.folder} yet; run the device, or name a file by --model")
    content = read_verified(config.folder / release.file)
    return Classifier(release.release, content, release.labels, config.serving.threads)


def _classify(classifier: "Classifier", image: Path) -> dict[str, Any]:
    from common.learning.decoding import read_image_file

    row: dict[str, Any] = {"file": str(image), "ok": False, "label": "", "release": classifier.release, "text": ""}
    try:
        outcome = classifier.classify(read_image_file(image))
    except DataError as error:
        return {**row, "text": str(error)}
    milliseconds = round(outcome.milliseconds, 3)
    figures = {"label": outcome.label, "probability": outcome.probability, "milliseconds": milliseconds}
    return {**row, "ok": True, **figures}


def _cells(row: dict[str, Any]) -> tuple[object, ...]:
    if not row["ok"]:
        return row["file"], f"- ({row['text']})", "", "", row["release"]
    return row["file"], row["label"], f"{row['probability']:.4f}", f"{row['milliseconds']:.1f}", row["release"]
