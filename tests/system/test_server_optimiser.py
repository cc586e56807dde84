"""FedAdam in live rounds: what it remembers outlives the coordinator, and an offline aggregation comes to the same."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.learning.numpy_learner import numpy_learner
from common.weights import unpack
from coordinator.outcome import read_best
from tests.system.conftest import MODEL, SEED, LiveFederation, initial_model

pytestmark = pytest.mark.system

EXAMPLES = {"rpi1": 7, "rpi2": 30}
OPTIONS = {"server_learning_rate": 0.03, "beta1": 0.8, "beta2": 0.95, "tau": 0.01}
STRATEGY = {"name": "fedadam", **OPTIONS}
ROUNDS = 4


def local(base: bytes, device: str, number: int) -> NDArray[np.float32]:
    """Return what a device of the numpy model makes of `base`."""
    seed = (SEED + number) * 1_000_003 + int.from_bytes(device.encode(), "big") % 1_000_003
    return np.frombuffer(base, "<f4") + np.float32((seed % 1000 + 1) / 1024)


def by_the_paper() -> list[bytes]:
    """Return the global models of every round: Reddi et al. 2021, algorithm 2."""
    models = [initial_model()]
    first, second = np.zeros(0), np.zeros(0)
    for number in range(1, ROUNDS + 1):
        before = np.frombuffer(models[-1], "<f4")
        updates = {d: (local(models[-1], d, number) - before).astype(np.float64) for d in sorted(EXAMPLES)}
        mean = sum((EXAMPLES[d] * u for d, u in updates.items()), np.zeros(before.size)) / sum(EXAMPLES.values())
        if number == 1:
            first, second = np.zeros(before.size), np.full(before.size, OPTIONS["tau"] ** 2)
        first = OPTIONS["beta1"] * first + (1 - OPTIONS["beta1"]) * mean
        second = OPTIONS["beta2"] * second + (1 - OPTIONS["beta2"]) * (mean * mean)
        move = OPTIONS["server_learning_rate"] * first / (np.sqrt(second) + OPTIONS["tau"])
        models.append((before.astype(np.float64) + move).astype("<f4").tobytes())
    return models


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFederation]:
    with LiveFederation(tmp_path_factory.mktemp("fedadam"), EXAMPLES) as federation:
        training = {"seed": SEED, "epochs": 1, "validation_share": 0.2}
        yield federation.begin("mosquitto", model={"sleep_s": 0.3}, strategy=STRATEGY, training=training)


def test_a_run_that_is_killed_again_and_again_comes_to_the_bytes_of_an_undisturbed_one(live: LiveFederation) -> None:
    """The paper's formula stands for the undisturbed run; its first round here is one."""
    expected = by_the_paper()
    live.run(1)
    assert live.model() == expected[1]
    moments = live.folder / "coordinator" / "moments"
    (kept,) = moments.glob("*.body")

    number = live.ask(ROUNDS - 1)
    live.until(lambda: live.trainings("rpi1", number), "rpi1 did not begin to train")
    restart(live)  # while devices train
    live.until(lambda: set(moments.glob("*.body")) - {kept}, "the coordinator did not aggregate")
    restart(live)  # the new moments are on the disk; whether the journal tells of them is chance
    live.until(lambda: live.store.last_round() == ROUNDS, "the last round did not begin")
    restart(live)
    rows = live.finish(number, ROUNDS - 1)

    assert [row.phase for row in rows] == ["committed"] * (ROUNDS - 1)
    assert live.model() == expected[ROUNDS]
    live.until(lambda: len(list(moments.glob("*.body"))) == 1, "old moments were not deleted")


def restart(live: LiveFederation) -> None:
    live.processes["coordinator"].kill()
    live.start_coordinator()


def test_the_best_model_outlives_the_rounds_after_it(live: LiveFederation) -> None:
    """The numpy model says 0.5 of every image, so none is better than the initial one."""
    best = read_best(live.store.fact("best"))
    assert best is not None
    assert (best.metric, best.round, round(best.value, 3)) == ("global_validation_loss", 1, 0.693)
    assert live.body(best.model.id).read_bytes() == initial_model()


def test_the_offline_command_makes_the_bytes_of_a_live_round(live: LiveFederation, tmp_path: Path) -> None:
    spec = numpy_learner(MODEL).spec()
    base, number = live.model(), live.store.last_round() + 1
    for name, data in {"global": base, **{d: local(base, d, number).tobytes() for d in EXAMPLES}}.items():
        tensors: dict[str, Any] = dict(zip((t.name for t in spec), unpack(spec, data), strict=True))
        np.savez(tmp_path / f"{name}.npz", **tensors)
    (before,) = (live.folder / "coordinator" / "moments").glob("*.body")  # the test above waited for that
    (tmp_path / "moments").write_bytes(before.read_bytes())
    live.run(1)

    command = ["aggregate", *(str(tmp_path / f"{d}.npz") for d in EXAMPLES), "--global", str(tmp_path / "global.npz")]
    command += ["--strategy", "fedadam", *(f"--option={key}={value}" for key, value in OPTIONS.items())]
    command += ["--examples", "7,30", "--moments", str(tmp_path / "moments"), "--out", str(tmp_path / "out.npz")]
    done = subprocess.run([sys.executable, "-m", "coordinator", *command], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as arrays:
        assert b"".join(arrays[tensor.name].tobytes() for tensor in spec) == live.model()
    kept = [path.read_bytes() for path in (live.folder / "coordinator" / "moments").glob("*.body")]
    assert (tmp_path / "moments").read_bytes() in kept  # those of the round before may still lie there
