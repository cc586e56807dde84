"""Sets of images that are parted already: which part is trained on, which is measured on, and that it is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.command import console
from common.errors import ConfigError
from common.learning.commands import show_comparison
from common.learning.layouts import Where, find, find_unseen
from common.learning.offline import TrainingReport
from common.learning.reporting import show_training
from common.weights import Tensor


class Guess:
    """Takes every image for positive."""

    image_size = 8

    def predict(self, _weights: list[Tensor], images: Any) -> Any:
        return np.full(len(images), 0.75)


def fill(folder: Path, *parts: str) -> Path:
    for part in parts:
        for label in ("no", "yes"):
            (folder / part / label).mkdir(parents=True)
            for number in range(2):
                Image.fromarray(np.full((8, 8), number, np.uint8)).save(folder / part / label / f"{number}.png")
    return folder


def measure(capsys: pytest.CaptureFixture[str], source: Path, **flags: Any) -> tuple[str, str]:
    """What a comparison says on stdout and on stderr."""
    given = {"images": None, "unseen": None, "labels": "no,yes", "sites": (), "plots": None, "as_json": False, **flags}
    show_comparison(Guess(), {"model.h5": []}, source=source, **given)
    said = capsys.readouterr()
    return said.out, said.err


@pytest.mark.parametrize(
    ("train", "held"),
    [
        *(("train", held) for held in ("val", "valid", "validation", "test", "testing")),
        ("Training", "Testing"),
        ("TRAIN", "Valid"),
        ("training", "TEST"),
    ],
)
def test_the_two_parts_are_known_by_their_usual_names(tmp_path: Path, train: str, held: str) -> None:
    found = find(Where(fill(tmp_path, train, held)))
    assert (found.images, found.unseen) == (str(tmp_path / train), str(tmp_path / held))
    assert find_unseen(Where(tmp_path)).unseen == str(tmp_path / held)


def test_validation_comes_before_test(tmp_path: Path) -> None:
    assert find(Where(fill(tmp_path, "train", "test", "val"))).unseen == str(tmp_path / "val")


def test_a_training_part_alone_is_not_measured_on(tmp_path: Path) -> None:
    fill(tmp_path, "Training")
    assert find(Where(tmp_path)).images == str(tmp_path / "Training")
    with pytest.raises(ConfigError, match=r"Training is for training, and nothing is held back beside it.*--unseen"):
        find_unseen(Where(tmp_path))
    held = fill(tmp_path / "elsewhere", ".")
    assert find_unseen(Where(tmp_path, unseen=held)).unseen == str(held)


def test_a_site_of_a_split_without_its_held_back_part_is_not_measured_on(tmp_path: Path) -> None:
    for name in ("rpi1", "rpi1_unseen", "coordinator"):
        (tmp_path / f"{name}.csv").write_text("file,label\n")
    assert find_unseen(Where(tmp_path, "rpi1")).unseen == str(tmp_path / "rpi1_unseen.csv")
    assert find_unseen(Where(tmp_path, "rpi1_unseen")).labels == str(tmp_path / "rpi1_unseen.csv")
    with pytest.raises(ConfigError, match=r"coordinator\.csv is for training"):
        find_unseen(Where(tmp_path, "coordinator"))


def test_a_folder_that_fits_nothing_is_answered_with_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "glioma").mkdir()
    with pytest.raises(ConfigError, match=r"neither train/ nor the folders no and yes of the labels.*'glioma'"):
        find(Where(tmp_path))


def test_evaluate_says_which_images_it_measured_and_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "set", "Training", "Testing")
    (tmp_path / "set" / "Testing" / "no" / "page.jpg").write_text("<html>")
    told, _ = measure(capsys, tmp_path / "set")
    assert f"set: measured on 4 images held back, {tmp_path}/set/Testing" in told
    assert "left out: no/page.jpg: " in told
    told, _ = measure(capsys, tmp_path / "set" / "Training", labels=" no , yes ")
    assert "Training: measured on all 4 images of" in told
    assert "the figures hold if the model never saw them" in told


def test_json_stays_json_and_the_words_go_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, told = measure(capsys, fill(tmp_path / "set", "."), as_json=True)
    assert json.loads(out)[0]["figures"]["count"] == 4
    assert "measured on all 4 images" in told


def test_train_says_what_it_measured_on_or_that_it_measured_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    plain: dict[str, Any] = {
        "out": "m.h5",
        "picture": None,
        "epochs": [],
        "kept": {},
        "num_examples": 4,
        "taken": {},
        "tensors": 2,
    }
    skipped = tuple(f"no/{number}.png: it is empty" for number in range(9))
    report = TrainingReport(**plain, unseen=None, measured_on=None, skipped=skipped, seconds=1.0)
    show_training(report, console())
    told = capsys.readouterr().out
    assert "measured on no unseen image: none are held back; name some by --unseen" in told
    assert "left out: 4 more, 9 in all" in told
