"""The first global model: trained on the coordinator's own share, read from a file, or random.

Runs in a process of its own (`python -m coordinator.initial CONFIG`), so that the coordinator never
holds TensorFlow's memory.
"""

import logging
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from common.blobs import BlobStore
from common.command import verdict
from common.errors import ConfigError, DataError, FedpiError, LinkError, PeerError, WorkError
from common.files import write_atomic
from common.learning.seam import Learner, Site, build, load
from common.messages import Ref
from common.plan import Training
from common.python import child_command
from common.stopping import Stop
from common.weights import Spec, Tensor, pack, validate
from coordinator.config import CoordinatorConfig, read_config

log = logging.getLogger(__name__)

LOOK_S = 0.2
"""How often the parent looks whether the child has ended."""


def make_initial(config_path: Path, config: CoordinatorConfig, blobs: BlobStore, stop: Stop) -> Ref | None:
    """Make the first global model in a child process and store it; None where `stop` was set meanwhile.

    Raises an error of the kind that the child ended with.
    """
    log.info("making the initial model: %s from %s", config.model.name, config.initial.source)
    command = child_command("coordinator.initial", str(config_path))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as child:
        while child.poll() is None:
            if stop.wait(LOOK_S):
                child.kill()
                return None
    if child.returncode != 0:
        kinds = (ConfigError, DataError, LinkError)
        kind = next((kind for kind in kinds if kind.exit_code == child.returncode), WorkError)
        raise kind(f"the initial model could not be made (see above; exit code {child.returncode})")
    spec = msgspec.json.decode(_spec_path(config).read_bytes(), type=Spec)
    return blobs.add(_weights_path(config), spec, config.transfer.chunk_bytes)


def _weights_path(config: CoordinatorConfig) -> Path:
    return config.folder / "initial.tmp"


def _spec_path(config: CoordinatorConfig) -> Path:
    return config.folder / "initial.json"


def _weights(learner: Learner, config: CoordinatorConfig) -> list[Tensor]:
    initial = config.initial
    if initial.source == "file":
        return learner.read(Path(initial.file or ""))
    start = learner.initial(config.training.seed)
    if initial.source == "random":
        return start
    site = load(config.data, learner.image_size)
    _tell_skipped(site)
    training = Training(
        epochs=initial.epochs,
        batch_size=initial.batch_size,
        learning_rate=initial.learning_rate,
        seed=config.training.seed,
    )

    def on_epoch(epoch: int, metrics: object) -> None:
        log.info("initial model: epoch %d of %d %s", epoch, initial.epochs, metrics)

    return learner.train(start, site, training, on_epoch).weights


def _tell_skipped(site: Site) -> None:
    for sentence in site.skipped:
        log.warning("%s", sentence)


def _main(config_path: Path) -> None:
    config = read_config(config_path)
    learner = build(config.model, config.models)
    spec = learner.spec()
    try:
        validate(spec)
    except PeerError as error:
        raise ConfigError(f"model.name: {config.model.name!r} cannot be averaged: {error}") from error
    write_atomic(_weights_path(config), pack(spec, _weights(learner, config)))
    write_atomic(_spec_path(config), msgspec.json.encode(spec))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's to hear
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    try:
        _main(Path(sys.argv[1]))
    except (FedpiError, OSError, ImportError) as error:
        if (told := verdict(error)) is None:
            raise
        print(f"fedpi-coordinator: {told[0]}", file=sys.stderr)  # noqa: T201 - the parent's terminal
        sys.exit(told[1])
