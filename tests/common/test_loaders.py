"""Loaders of users' own: what they return is checked before anybody learns from it."""

import sys
from pathlib import Path

import numpy as np
import pytest

from common.config import DataConfig
from common.errors import DataError
from common.learning.seam import Site, load

LOADER = """
import os
import numpy as np
from common.learning.seam import Examples, Site

def load(data, image_size):
    labels = data.options["labels"]
    if labels is None:
        return None
    images = np.zeros((3, 8, 8, 3), np.uint8)
    skipped = ["a.dcm: no pixels", os.fsdecode(b"t\\xfc\\n.png: broken")]
    return Site(Examples(images, np.array(labels)), Examples(images[:0], np.zeros(0, np.int64)), skipped)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_loader_of_test.py").write_text(LOADER)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("own_loader_of_test", None)


def loaded(labels: object) -> Site:
    return load(DataConfig(loader="own_loader_of_test:load", options={"labels": labels}), 8)


@pytest.mark.parametrize("labels", [[0, 1, 1], [False, True, True], [0.0, 1.0, 1.0]])
def test_zero_and_one_of_any_type_are_labels(labels: object) -> None:
    site = loaded(labels)
    assert site.train.labels.tolist() == [0, 1, 1]
    assert site.train.labels.dtype == np.int64


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([0, 1, 2], "returns the labels 2; until now only 0 and 1"),
        ([-1, 1, 1], "returns the labels -1;"),
        ([0.5, 1.0, float("nan")], "returns the labels 0.5, nan;"),
        (["no", "yes", "yes"], "returns the labels no, yes;"),
        ([[0, 1], [1, 0], [1, 0]], r"returns labels \(3, 2\) for 3 images"),
        ([0, 1], r"returns labels \(2,\) for 3 images"),
        (None, "returns NoneType, not common.learning.seam.Site"),
    ],
)
def test_anything_else_is_refused_with_what_it_is(labels: object, sentence: str) -> None:
    with pytest.raises(DataError, match=f"data.loader: 'own_loader_of_test:load' {sentence}"):
        loaded(labels)


def test_what_a_loader_skips_is_told_in_lines_that_can_be_printed() -> None:
    assert loaded([0, 1, 1]).skipped == ("a.dcm: no pixels", r"t\xfc .png: broken")
