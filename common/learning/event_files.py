"""Figures as event files that TensorBoard opens; the only importer of tensorboardX, which needs no TensorFlow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import ConfigError, WorkError


def write_events(folder: Path, runs: Mapping[str, Sequence[tuple[int, Mapping[str, float]]]]) -> None:
    """Write a run a name into `folder`: its steps (epochs or rounds), each with its figures.

    A run that is there already is replaced. Raises ConfigError where tensorboardX is missing, WorkError where the
    disk fails.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ConfigError("event files need tensorboardX: install fedpi[tools]") from error
    try:
        for name, steps in runs.items():
            for old in (folder / name).glob("events.out.tfevents.*"):
                old.unlink()
            with SummaryWriter(str(folder / name)) as writer:
                for step, figures in steps:
                    for figure, value in figures.items():
                        writer.add_scalar(figure, value, step)
    except OSError as error:
        raise WorkError(f"{folder}: cannot write the event files: {error.strerror or error}") from error
