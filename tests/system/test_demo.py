"""The demo, whole but small: from a folder of images to predictions over MQTT."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from coordinator.dataset.synthetic import draw_slices

pytestmark = [pytest.mark.system, pytest.mark.tensorflow]

PER_LABEL = 50
COPIED = 12
PARTS = ("coordinator", "rpi1", "rpi1_unseen", "rpi2", "rpi2_unseen")
TIMEOUT_S = 400.0
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Drawn slices, near copies of some under other names, and a file that is no image."""
    folder = tmp_path / "images"
    draw_slices(folder, PER_LABEL, seed=3)
    for label in ("yes", "no"):
        for path in sorted((folder / label).iterdir())[:COPIED]:
            with Image.open(path) as image:
                mirrored = ImageOps.mirror(image.convert("L")).resize((150, 150))
            mirrored.save(path.with_name(f"copy of {path.stem}.JPG"))
    (folder / "yes" / "broken.png").write_bytes(PNG + b"cut off")
    return folder


def test_demo_leaves_a_report_plots_and_a_model_that_agrees_with_keras(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    command = [sys.executable, "-m", "coordinator.rehearsal", "demo", "--folder", str(out), "--images", str(images)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())

    sides = check_split(out / "split", report["split"]["files"])
    rounds = report["rounds"]
    assert [row["phase"] for row in rounds] == ["committed"] * len(rounds)
    assert all(row["reported"] == ["rpi1", "rpi2"] for row in rounds)
    assert min(min(row["bytes_down"], row["bytes_up"], row["seconds"]) for row in rounds[1:]) > 0
    unseen = len(sides["rpi1_unseen"]) + len(sides["rpi2_unseen"])
    assert report["before"]["together"]["count"] == report["after"]["together"]["count"] == unseen
    serving = report["serving"]
    assert (serving["count"], serving["label_disagreements"]) == (unseen, 0)
    assert serving["max_difference"] <= 0.01
    for plot in ("rounds.png", "roc.png"):
        with Image.open(out / plot) as drawn:
            assert drawn.format == "PNG"
            drawn.load()
    assert (out / "release" / "model.tflite").read_bytes()[4:8] == b"TFL3"
    assert "same label as Keras on every one" in done.stdout
    told = ("Run ", "Round ")  # how the rounds go, and no banner of any library
    assert [line for line in done.stderr.splitlines() if not line.startswith(told)] == []
    shown = [line.split("  ")[0] for line in done.stdout.splitlines()]
    models = ("the initial model, before the rounds", "each site alone (mean of 2)", "the federation, after the rounds")
    places = [shown.index(name) for name in models]
    assert places == list(range(places[0], places[0] + 3))
    alone = report["alone"]
    assert [site["together"]["count"] for site in alone["sites"].values()] == [unseen, unseen]
    mean = sum(site["together"]["auc"] for site in alone["sites"].values()) / 2
    assert alone["together"]["auc"] == pytest.approx(mean)


def check_split(split: Path, files: int) -> dict[str, list[str]]:
    """Check that each image is in one CSV, its copies in the same; returns the names of the files in each CSV."""
    sides = sides_of(split)
    assert files == sum(len(names) for names in sides.values()) == 2 * (PER_LABEL + COPIED)
    side_of = {name: side for side, names in sides.items() for name in names}
    copies = [name for name in side_of if "copy of" in name]
    assert len(copies) == 2 * COPIED
    for name in copies:
        assert side_of[name] == side_of[name.replace("copy of ", "").replace(".JPG", ".png")]
    return sides


def sides_of(split: Path) -> dict[str, list[str]]:
    """Names of the files in each CSV of a split."""
    sides = {}
    for part in PARTS:
        with (split / f"{part}.csv").open(newline="") as file:
            sides[part] = [row["file"] for row in csv.DictReader(file)]
    return sides
