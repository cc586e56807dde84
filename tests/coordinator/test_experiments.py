"""`plot` and `evaluate` on what a federation left in its journal."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from common.blobs import BlobStore
from common.learning.seam import FileLearner, build
from common.weights import pack
from coordinator.cli import main
from coordinator.config import read_config
from coordinator.dataset.synthetic import draw_slices
from coordinator.round_state import Round
from coordinator.store import Store

Play = Callable[..., Round]


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.mark.tensorflow
def test_every_device_that_reported_gets_its_history_and_its_event_files(
    config_path: Path, play: Play, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for number in (1, 2, 3):
        figures = {"loss": 1 / number, "accuracy": 0.5 + number / 10, "global_accuracy": 0.5}
        play(number, reported={"rpi1": figures, "rpi2": figures}, failed={"rpi3": "no memory"} if number == 2 else {})
    for _ in range(2):  # a second time replaces what is there
        result = run("plot", "--config", config_path, "--out", tmp_path / "plots")
        assert result.exit_code == 0
    assert "tensorboard --logdir" in result.stdout
    pictures = sorted((tmp_path / "plots").glob("*.png"))
    assert [path.name for path in pictures] == ["rpi1_training_history.png", "rpi2_training_history.png"]
    assert Image.open(pictures[0]).size[0] > 800
    events = EventAccumulator(str(tmp_path / "plots" / "events" / "rpi1"))
    events.Reload()
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("loss")] == [(1, 1.0), (2, 0.5), (3, 0.333)]
    assert len(list((tmp_path / "plots" / "events" / "rpi1").iterdir())) == 1


def test_nothing_to_draw_is_one_sentence(config_path: Path, journal: Store, tmp_path: Path) -> None:
    del journal
    result = run("plot", "--config", config_path, "--out", tmp_path / "plots")
    assert result.exit_code == 65
    assert "run a round first" in result.stderr
    assert not (tmp_path / "plots").exists()


@pytest.mark.tensorflow
# Keras reads TensorFlow's variables in a way that NumPy 2 discourages.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_live_global_model_is_measured_beside_a_file(tmp_path: Path) -> None:
    for place, part in enumerate(("train", "held")):
        draw_slices(tmp_path / part, 5, seed=place, size=48)
    path = tmp_path / "coordinator.yaml"
    plain = {
        "federation": "brain",
        "state": str(tmp_path / "state"),
        "model": {"name": "simple_cnn", "options": {"image_size": 32}},
        "data": {"images": str(tmp_path / "train"), "unseen": str(tmp_path / "held")},
    }
    path.write_text(yaml.safe_dump(plain))
    config = read_config(path)
    learner = build(config.model, {})
    assert isinstance(learner, FileLearner)
    learner.save(learner.initial(3), tmp_path / "same.h5")
    (config.folder / "models").mkdir(parents=True)
    (config.folder / "draft.tmp").write_bytes(pack(learner.spec(), learner.initial(3)))
    store = Store(config.journal, create=True)
    ref = BlobStore(config.global_models).add(config.folder / "draft.tmp", learner.spec(), 4096)
    store.set_global_model(ref)

    result = run("evaluate", "--config", path, "--before", tmp_path / "same.h5", "--json")
    assert result.exit_code == 0, result.output
    before, live = json.loads(result.stdout)
    assert (before["model"], live["model"], live["site"]) == ("before", "initial", "held")
    assert before["figures"] == live["figures"]
    assert live["figures"]["count"] == 10
