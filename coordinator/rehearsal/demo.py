"""The demo: a whole federation on this machine, from images to predictions over MQTT."""

import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from common.config import BrokerConfig, DataConfig, convert
from common.errors import ConfigError, WorkError
from common.learning.evaluation import THRESHOLD
from common.messages import Metrics
from common.python import child_command
from coordinator.config import read_config
from coordinator.dataset.split import SplitOptions, SplitReport, split
from coordinator.rehearsal.asking import Answer, Asker
from coordinator.rehearsal.assessment import Alone, Assessment
from coordinator.rehearsal.federation import FEDERATION, Federation, last_line, run
from coordinator.rehearsal.recipes import SHARES, SIMPLE_CNN, UNSEEN_SHARE, Recipe, mobilenet_v2
from coordinator.rehearsal.reference import Reference
from coordinator.store import RoundRow, Store

if TYPE_CHECKING:
    from rich.console import Console

DEVICES = ("rpi1", "rpi2")
SYNTHETIC_PER_LABEL = 240
DEADLINE_S = 600.0


class RoundReport(msgspec.Struct, frozen=True, kw_only=True):
    """One round as the ledger has it."""

    round: int
    phase: str
    invited: tuple[str, ...]
    reported: tuple[str, ...]
    seconds: float
    bytes_down: int
    bytes_up: int
    metrics: Metrics


class ServingReport(msgspec.Struct, frozen=True, kw_only=True):
    """Predictions that the devices gave over MQTT; milliseconds on the device, and from publish to answer."""

    count: int
    p50_ms: float
    p95_ms: float
    round_trip_p50_ms: float
    round_trip_p95_ms: float
    label_disagreements: int
    """Images to which a device's TFLite model gave another label than Keras here."""
    max_difference: float
    """Largest difference of the two probabilities."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `report.json` holds."""

    images: str
    is_synthetic: bool
    seed: int
    model: dict[str, Any]
    split: SplitReport
    rounds: tuple[RoundReport, ...]
    before: Assessment
    alone: Alone
    """Each site trained by itself, from the same initial model and with as many passes over its images."""
    after: Assessment
    release: dict[str, Any]
    serving: ServingReport
    seconds: float


class Demo:
    """One run of the demo below `folder`; `images` and `weights` as the user gave them."""

    def __init__(self, folder: Path, images: Path | None, weights: str | None, seed: int, out: "Console") -> None:
        if images is not None and not images.is_dir():
            raise ConfigError(f"IMAGES: {images} is not a folder; it must hold one folder a label, yes/ and no/")
        self._folder = folder.absolute()
        self._is_synthetic = images is None
        self._images = images.absolute() if images else self._folder / "images"
        self._seed = seed
        self._recipe: Recipe = mobilenet_v2(_weights(weights)) if weights else SIMPLE_CNN
        self._out = out
        self._started = time.monotonic()

    def run(self) -> Report:
        """Run it all; raises FedpiError where a step fails."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        parts = self._prepare_images()
        with Federation(self._folder) as federation:
            self._start(federation)
            with self._reference(federation) as reference:
                store = self._await_initial(federation)
                reference.measure(self._keep_initial(federation, store), self._recipe.rounds)
                self._run_rounds(federation)
                release = self._release(federation, store)
                models, expected = self._assess(federation, store, reference)
            serving = self._ask(federation, reference.names, expected)
            report = self._report(store, parts, models, release, serving)
            self._draw(store, report)
        (self._folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        return report

    # ---- steps ------------------------------------------------------------------------------

    def _prepare_images(self) -> SplitReport:
        if self._is_synthetic:
            from coordinator.dataset.synthetic import draw_slices

            with self._step(f"Drawing {2 * SYNTHETIC_PER_LABEL} synthetic slices (no patient's images)"):
                draw_slices(self._images, SYNTHETIC_PER_LABEL, self._seed)
        options = SplitOptions(shares=SHARES, unseen_share=UNSEEN_SHARE, seed=self._seed, sites=DEVICES)
        with self._step(f"Splitting {self._images} into a federation, near copies kept together") as tell:
            found = split(self._images, self._folder / "split", options, tell)
        self._say(
            f"{found.files} images, {found.groups} of them different "
            f"({found.exact_copies} exact and {found.near_copies} near copies): "
            + ", ".join(f"{part.name} {part.images}" for part in found.parts)
        )
        return found

    def _start(self, federation: Federation) -> None:
        with self._step("Starting a broker, a coordinator and the devices rpi1 and rpi2"):
            federation.start_broker("embedded")
            federation.start_coordinator(self._coordinator_options())
            for device in DEVICES:
                federation.start_device(device, {"data": self._data(device)})

    def _await_initial(self, federation: Federation) -> Store:
        with self._step("Training the initial model on the coordinator's own share") as tell:
            while not federation.has_initial_model():
                tell(last_line(federation.processes["coordinator"].log))
                time.sleep(0.2)
        store = Store(federation.journal)
        federation.wait_for_devices(store, len(DEVICES))
        return store

    def _reference(self, federation: Federation) -> Reference:
        config = read_config(federation.config("coordinator"))
        data = {device: convert(self._data(device), DataConfig, device) for device in DEVICES}
        return Reference(config, data, self._folder)

    def _keep_initial(self, federation: Federation, store: Store) -> Path:
        """Copy the initial weights: the coordinator keeps only the current ones."""
        model = store.global_model()
        assert model is not None  # noqa: S101 - _await_initial waited for it
        copy = self._folder / "initial.weights"
        shutil.copyfile(federation.body(model.id), copy)
        return copy

    def _run_rounds(self, federation: Federation) -> None:
        self._say(f"Running {self._recipe.rounds} federated rounds; beside them each site is trained alone, to compare")
        config = str(federation.config("coordinator"))
        command = child_command("coordinator", "start", "--config", config)
        done = subprocess.run([*command, "--rounds", str(self._recipe.rounds)], check=False, env=federation.environment)
        if done.returncode != 0:
            raise WorkError(f"the rounds did not all commit (exit code {done.returncode}); logs: {self._folder}/logs")

    def _assess(
        self, federation: Federation, store: Store, reference: Reference
    ) -> tuple[tuple[Assessment, Alone, Assessment], dict[str, NDArray[np.float64]]]:
        """Measure the model before the rounds, each site's own and the one after; and what that one says."""
        with self._step("Evaluating on the images that both sites hold back"):
            before, alone = reference.result()
            model = store.global_model()
            assert model is not None  # noqa: S101 - rounds have run
            probabilities = reference.predict(federation.body(model.id))
            return (before, alone, reference.assess(probabilities)), probabilities

    def _release(self, federation: Federation, store: Store) -> dict[str, Any]:
        with self._step("Converting the model to TFLite and putting it on the devices"):
            config = str(federation.config("coordinator"))
            out = str(self._folder / "release")
            printed = run(
                ["coordinator", "export", "--config", config, "--out", out, "--release", "--json"],
                self._folder / "logs" / "export.log",
            )
            release: dict[str, Any] = msgspec.json.decode(printed)
            deadline = time.monotonic() + DEADLINE_S
            while {row.release for row in store.devices()} != {release["release"]}:
                federation.check()
                if time.monotonic() > deadline:
                    raise WorkError(f"the devices did not install release {release['release']}")
                time.sleep(0.1)
        return release

    def _ask(
        self,
        federation: Federation,
        names: Mapping[str, Sequence[str]],
        expected: Mapping[str, NDArray[np.float64]],
    ) -> ServingReport:
        """Ask the devices beside each other, each for one image after the other."""

        def ask(device: str) -> list[tuple[Answer, float]]:
            asker = Asker(FEDERATION, device, convert(federation.broker, BrokerConfig, "broker"))
            asker.start()
            found = []
            for name, probability in zip(names[device], expected[device], strict=True):
                found.append((asker.ask((self._images / name).read_bytes()), float(probability)))
                tell(f"{device}: {name}")
            asker.stop()
            return found

        with self._step("Asking the devices for predictions over MQTT") as tell, ThreadPoolExecutor() as beside:
            answers = [answer for found in beside.map(ask, expected) for answer in found]
        refused = [answer.prediction.text for answer, _ in answers if not answer.prediction.ok]
        if refused:
            raise WorkError(f"a device could not answer: {refused[0]}")
        return _summarise(answers)

    # ---- what is left behind ----------------------------------------------------------------

    def _report(
        self,
        store: Store,
        parts: SplitReport,
        models: tuple[Assessment, Alone, Assessment],
        release: dict[str, Any],
        serving: ServingReport,
    ) -> Report:
        return Report(
            images=self._images.name,
            is_synthetic=self._is_synthetic,
            seed=self._seed,
            model=self._recipe.model,
            split=parts,
            rounds=tuple(_round_report(row) for row in store.rounds()),
            before=models[0],
            alone=models[1],
            after=models[2],
            release=release,
            serving=serving,
            seconds=time.monotonic() - self._started,
        )

    def _draw(self, store: Store, report: Report) -> None:
        from coordinator.rehearsal.plots import plot_roc, plot_rounds

        kind = "drawn slices" if report.is_synthetic else report.images
        name = report.model["name"]
        title = f"{name} on {kind}: {report.after.together.count} unseen images"
        plot_roc((report.before, report.alone, report.after), self._folder / "roc.png", title)
        plot_rounds(store.ledger(), report.after, self._folder / "rounds.png", f"{name} on {kind}, federated")

    # ---- inside -----------------------------------------------------------------------------

    def _coordinator_options(self) -> dict[str, Any]:
        return {
            "model": self._recipe.model,
            "initial": self._recipe.initial,
            "training": {**self._recipe.training, "seed": self._seed},
            "strategy": self._recipe.strategy,
            "data": {"images": str(self._images), "labels": str(self._folder / "split" / "coordinator.csv")},
            "round": {"goal": len(DEVICES), "minimum": len(DEVICES)},
        }

    def _data(self, device: str) -> dict[str, str]:
        split = self._folder / "split"
        return {
            "images": str(self._images),
            "labels": str(split / f"{device}.csv"),
            "unseen": str(split / f"{device}_unseen.csv"),
        }

    def _say(self, text: str) -> None:
        self._out.print(f"[{time.monotonic() - self._started:5.1f} s] {text}")

    @contextmanager
    def _step(self, text: str) -> "Iterator[Any]":
        """Tell what is going on, with a moving line on a terminal."""
        self._say(text)
        with self._out.status("") as status:
            yield lambda detail: status.update(detail[-100:])


def _weights(weights: str) -> str:
    if weights == "imagenet":
        return weights
    if not Path(weights).is_file():
        raise ConfigError(f"WEIGHTS: {weights} is not a file; name MobileNetV2 no-top weights (.h5), or 'imagenet'")
    return str(Path(weights).absolute())


def _round_report(row: RoundRow) -> RoundReport:
    return RoundReport(
        round=row.round,
        phase=row.phase,
        invited=row.invited,
        reported=row.reported,
        seconds=row.seconds,
        bytes_down=row.bytes_down,
        bytes_up=row.bytes_up,
        metrics=row.metrics,
    )


def _summarise(answers: list[tuple[Answer, float]]) -> ServingReport:
    times = [answer.prediction.milliseconds for answer, _ in answers]
    trips = [answer.round_trip_ms for answer, _ in answers]
    pairs = [(answer.prediction.probability, expected) for answer, expected in answers]
    return ServingReport(
        count=len(answers),
        p50_ms=float(np.percentile(times, 50)),
        p95_ms=float(np.percentile(times, 95)),
        round_trip_p50_ms=float(np.percentile(trips, 50)),
        round_trip_p95_ms=float(np.percentile(trips, 95)),
        label_disagreements=sum((here >= THRESHOLD) != (there >= THRESHOLD) for there, here in pairs),
        max_difference=max(abs(there - here) for there, here in pairs),
    )
