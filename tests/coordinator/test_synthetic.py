"""The drawn slices: named as synthetic, repeatable, and neither trivial nor alike."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from common.config import DataConfig
from common.errors import WorkError
from common.learning.images import load_site
from coordinator.dataset.synthetic import draw_slice, draw_slices


def test_the_same_seed_draws_the_same_files_however_many(tmp_path: Path) -> None:
    for name, count, seed in (("one", 2, 3), ("two", 3, 3), ("other", 2, 4)):
        draw_slices(tmp_path / name, count, seed, 64)
    file = Path("yes") / "synthetic_yes_001.png"
    one, two, other = ((tmp_path / name / file).read_bytes() for name in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_every_file_says_that_it_is_synthetic_and_loads_as_a_site(tmp_path: Path) -> None:
    draw_slices(tmp_path, 3, 0)
    site = load_site(DataConfig(images=str(tmp_path)), 160)
    assert site.train.names[0] == "no/synthetic_no_000.png"
    assert site.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for path in tmp_path.rglob("*.png"):
        assert "Synthetic" in Image.open(path).info["Description"]


def test_a_slice_is_a_bright_head_before_a_dark_background() -> None:
    for index in range(10):
        pixels = draw_slice(np.random.default_rng(index), 160, has_lesion=False)
        corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert corners.max() < 60 < pixels[40:120, 40:120].mean()


@pytest.mark.slow
def test_pixels_alone_do_not_give_the_label_away() -> None:
    count = 120
    drawn = [
        draw_slice(np.random.default_rng((index, lesion)), 160, has_lesion=bool(lesion))
        for lesion in (0, 1)
        for index in range(count)
    ]
    pixels = np.array([np.asarray(Image.fromarray(one).resize((32, 32))).ravel() / 255 for one in drawn])
    labels = np.repeat([0, 1], count)
    train = np.arange(2 * count) % 2 == 0
    model = LogisticRegression(C=0.01, max_iter=1000).fit(pixels[train], labels[train])
    assert 0.5 < roc_auc_score(labels[~train], model.predict_proba(pixels[~train])[:, 1]) < 0.8


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "no").write_text("a file, not a folder")
    with pytest.raises(WorkError, match=r"synthetic_no_000\.png: cannot write"):
        draw_slices(tmp_path, 1, 0, 64)
