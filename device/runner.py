"""The training process: `python -m device.runner FD NICENESS`. Reads jobs and writes events as JSON lines."""

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

from common.chunks import decode_head, ref_of
from common.config import DataConfig
from common.errors import FedpiError, WorkError
from common.learning.seam import Learner, Site, build, load
from common.messages import FIGURE_MAX, Metrics, ModelChoice, Plan
from common.weights import Spec, Tensor, difference, unpack
from device.jobs import Done, Failure, Job, JobEvent, Progress

_Emit = Callable[[JobEvent], None]


class Workshop:
    """The learner and the data of the last job, kept for the next."""

    def __init__(self) -> None:
        self._learner: tuple[ModelChoice, Learner] | None = None
        self._site: tuple[DataConfig, int, Site] | None = None

    def run(self, job: Job, emit: _Emit) -> None:
        """Train and write the update; raises FedpiError."""
        learner = self._learner_for(job)
        spec, base = _read_weights(job)
        if (reason := difference(spec, learner.spec())) is not None:
            raise WorkError(f"the model that is built here is not the global one: {reason}")
        site = self._site_for(job.data, learner.image_size)
        metrics = _evaluate(learner, base, site) if job.plan.evaluate else {}

        def on_epoch(epoch: int, figures: Mapping[str, float]) -> None:
            emit(Progress(job.round, epoch, job.plan.epochs, _finite(figures)))

        trained = learner.train(base, site, _seeded(job), on_epoch)
        if trained.num_examples < 1:
            raise WorkError("the training used no example, so its update has no weight")
        _write_update(Path(job.out), base, trained.weights)
        emit(Done(job.round, trained.num_examples, _finite({**metrics, **trained.metrics})))

    def _learner_for(self, job: Job) -> Learner:
        if self._learner is None or self._learner[0] != job.plan.model:
            self._learner = (job.plan.model, build(job.plan.model, job.models))
        return self._learner[1]

    def _site_for(self, data: DataConfig, image_size: int) -> Site:
        if self._site is None or self._site[:2] != (data, image_size):
            self._site = (data, image_size, load(data, image_size))
        return self._site[2]


def _read_weights(job: Job) -> tuple[Spec, list[Tensor]]:
    packed = Path(job.head).read_bytes()
    spec = decode_head(packed, ref_of(packed)).spec or ()
    with Path(job.base).open("rb") as file:  # mapped, not read: a Pi's memory holds the model once less
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return spec, unpack(spec, memoryview(mapped))


def _seeded(job: Job) -> Plan:
    """Give every device its own shuffling and augmentation, the same in every repetition of the run."""
    offset = int.from_bytes(job.device.encode(), "big") % 1_000_003
    return msgspec.structs.replace(job.plan, seed=job.plan.seed * 1_000_003 + offset)


def _evaluate(learner: Learner, weights: list[Tensor], site: Site) -> dict[str, float]:
    """Measure the global model on images that are never trained on."""
    if not len(site.unseen):
        return {}
    from common.learning.evaluation import evaluate, summarise

    probabilities = learner.predict(weights, site.unseen.images)
    return {f"global_{name}": value for name, value in summarise(evaluate(probabilities, site.unseen.labels)).items()}


def _write_update(out: Path, base: list[Tensor], local: list[Tensor]) -> None:
    """Write local - base, tensor by tensor; whole-number tensors are not averaged, so their update is zero."""
    with out.open("wb") as file:
        for before, after in zip(base, local, strict=True):
            change = after - before if before.dtype.kind == "f" else np.zeros_like(before)
            if change.dtype.kind == "f" and not np.isfinite(change).all():
                raise WorkError("training ended with numbers that are not finite; lower the learning rate")
            file.write(np.ascontiguousarray(change, before.dtype).data)


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    """Raises msgspec.ValidationError for more or longer names than a message takes."""
    return msgspec.convert({name: float(value) for name, value in figures.items() if abs(value) <= FIGURE_MAX}, Metrics)


def _serve(connection: socket.socket) -> None:
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()

    def read() -> None:
        decoder = msgspec.json.Decoder(Job)
        with connection.makefile("rb") as lines:
            for line in lines:
                jobs.put(decoder.decode(line))
        os._exit(0)  # the daemon is gone: nobody waits for what is being trained

    def emit(event: JobEvent) -> None:
        connection.sendall(msgspec.json.encode(event) + b"\n")

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
            emit(Failure(job.round, f"{type(error).__name__}: {error}"))


def main() -> None:
    """Serve the daemon at the other end of the socket."""
    descriptor, niceness = int(sys.argv[1]), int(sys.argv[2])
    os.nice(niceness)
    # Under memory pressure the kernel takes the trainer, never the daemon.
    Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    _serve(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main()
