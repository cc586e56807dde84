"""The training process: `python -m device.runner FD NICENESS`. Reads jobs and writes events as JSON lines."""

import contextlib
import mmap
import os
import queue
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from common import skipped
from common.chunks import decode_head, ref_of
from common.config import DataConfig
from common.errors import FedpiError, WorkError
from common.files import disk_error
from common.learning.course import chart, hold_out, seeded
from common.learning.personal import overlay, places
from common.learning.seam import Examples, Learner, Site, build, load
from common.messages import FIGURE_MAX, MAX_METRICS, Metrics
from common.plain_text import printable
from common.plan import ModelChoice
from common.python import extend_path
from common.weights import Spec, Tensor, difference, unpack, update_of
from device.jobs import Done, Failure, Job, JobEvent, Loaded, Progress
from device.personal import PersonalLayers

SHOWN = 10
"""Files left out that are named in the log."""
_Emit = Callable[[JobEvent], None]


class Workshop:
    """The learner and the data of the last job, kept for the next."""

    def __init__(self) -> None:
        self._learner: tuple[ModelChoice, Learner] | None = None
        self._site: tuple[DataConfig, int, Site] | None = None

    def run(self, job: Job, emit: _Emit) -> None:
        """Train and write the update; raises FedpiError."""
        extend_path(job.python_path)
        learner = self._learner_for(job)
        spec, base = _read_weights(job)
        if (reason := difference(spec, learner.spec())) is not None:
            raise WorkError(f"the model that is built here is not the global one: {reason}")
        site = self._site_for(job.data, learner.image_size)
        emit(_loaded(job.round, site))
        training = job.plan.training
        own, layers = places(spec, training), PersonalLayers(Path(job.personal), job.plan.model)
        start = overlay(spec, base, layers.read()) if own else base
        validation = hold_out(site.train, training.validation_share)[1]
        metrics = _evaluate(learner, start, site, validation) if training.evaluate else {}
        epochs = chart(training, len(site.train) - len(validation)).epochs

        def on_epoch(epoch: int, figures: Mapping[str, float]) -> None:
            emit(Progress(job.round, epoch, max(epochs, epoch), _finite(figures)))

        trained = learner.train(start, site, seeded(training, job.device), on_epoch)
        if trained.num_examples < 1:
            raise WorkError("the training used no example, so its update has no weight")
        _write_update(Path(job.out), base, [base[n] if n in own else t for n, t in enumerate(trained.weights)])
        if own:
            layers.keep({spec[place].name: trained.weights[place] for place in sorted(own)})
        figures = {**metrics, **trained.metrics}
        if len(figures) < MAX_METRICS:
            figures[skipped.METRIC] = float(len(site.skipped))
        emit(Done(job.round, trained.num_examples, _finite(figures)))

    def _learner_for(self, job: Job) -> Learner:
        if self._learner is None or self._learner[0] != job.plan.model:
            self._learner = (job.plan.model, build(job.plan.model, job.models))
        return self._learner[1]

    def _site_for(self, data: DataConfig, image_size: int) -> Site:
        if self._site is None or self._site[:2] != (data, image_size):
            self._site = (data, image_size, load(data, image_size))
        return self._site[2]


def _loaded(round_: int, site: Site) -> Loaded:
    usable, first = len(site.train) + len(site.unseen), tuple(sentence[:500] for sentence in site.skipped[:SHOWN])
    return Loaded(round_, usable, len(site.skipped), first)


def _read_weights(job: Job) -> tuple[Spec, list[Tensor]]:
    packed = Path(job.head).read_bytes()
    spec = decode_head(packed, ref_of(packed)).spec or ()
    with Path(job.base).open("rb") as file:  # mapped, not read: a Pi's memory holds the model once less
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return spec, unpack(spec, memoryview(mapped))


def _evaluate(learner: Learner, weights: list[Tensor], site: Site, validation: Examples) -> dict[str, float]:
    """Measure the model that the round begins with on images that are never trained on.

    The unseen ones tell how good it is, those held out for validation which round's is the best.
    """
    from common.learning.evaluation import evaluate, summarise

    figures: dict[str, float] = {}
    for prefix, examples in (("global_", site.unseen), ("global_validation_", validation)):
        if len(examples):
            found = summarise(evaluate(learner.predict(weights, examples.images), examples.labels))
            figures |= {f"{prefix}{name}": value for name, value in found.items()}
    return figures


def _write_update(out: Path, base: list[Tensor], local: list[Tensor]) -> None:
    """Write local - base, tensor by tensor."""
    try:
        with out.open("r+b" if out.exists() else "wb") as file:  # an earlier update's file: cheaper to write over
            for before, after in zip(base, local, strict=True):
                change = update_of(before, after)
                if change.dtype.kind == "f" and not np.isfinite(change).all():
                    raise WorkError("training ended with numbers that are not finite; lower the learning rate")
                file.write(np.ascontiguousarray(change, before.dtype).data)
            file.truncate()
    except OSError as error:
        out.unlink(missing_ok=True)  # a full disk needs its room
        raise disk_error(f"{out}: cannot write the update", error) from error


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    """Raises msgspec.ValidationError for more or longer names than a message takes."""
    return msgspec.convert({name: float(value) for name, value in figures.items() if abs(value) <= FIGURE_MAX}, Metrics)


def _serve(connection: socket.socket) -> None:
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()

    def read() -> None:
        decoder = msgspec.json.Decoder(Job)
        with contextlib.suppress(OSError), connection.makefile("rb") as lines:  # a reset is an end like any other
            for line in lines:
                jobs.put(decoder.decode(line))
        os._exit(0)  # the daemon is gone: nobody waits for what is being trained

    def emit(event: JobEvent) -> None:
        try:
            connection.sendall(msgspec.json.encode(event) + b"\n")
        except OSError:
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    workshop = Workshop()
    while True:
        job = jobs.get()
        try:
            workshop.run(job, emit)
        except FedpiError as error:
            emit(Failure(job.round, str(error)))
        except MemoryError:
            emit(Failure(job.round, "memory ran out while training"))
        except Exception as error:  # noqa: BLE001 - the model and its loader are the user's code: report what they raise
            traceback.print_exc()
            emit(Failure(job.round, printable(f"{type(error).__name__}: {error}")))


def main() -> None:
    """Serve the daemon at the other end of the socket."""
    descriptor, niceness = int(sys.argv[1]), int(sys.argv[2])
    with contextlib.suppress(OSError):  # a container may forbid either, and training works without
        os.nice(niceness)
    with contextlib.suppress(OSError):  # under memory pressure the kernel takes the trainer, never the daemon
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    _serve(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main()
