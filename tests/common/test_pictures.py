"""Pictures that are read at a glance: pairs of curves, few lines, and every line's name beside its end."""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.learning import comparison, pictures
from common.learning.seam import Examples, Images
from common.weights import Tensor

MOST_LINES = 4


class Guesser:
    """Gives the labels with noise: the larger its weight, the less."""

    def predict(self, weights: list[Tensor], images: Images) -> NDArray[np.float64]:
        labels = images[:, 0, 0, 0].astype(np.float64)
        noise = np.random.default_rng(0).normal(0, 1, len(labels))
        return 1 / (1 + np.exp(-float(weights[0][0]) * (labels * 2 - 1) - noise))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The figures that are written meanwhile, by the name of their file."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(pictures, "save", lambda figure, path: found.update({path.name: figure}))
    yield found
    for figure in found.values():
        pictures.pyplot().close(figure)


def compared(sites: int) -> comparison.Comparison:
    labels = np.arange(30) % 2
    pixels = np.broadcast_to(labels[:, None, None, None], (30, 2, 2, 3)).astype(np.uint8)
    examples = {f"rpi{number}": Examples(pixels, labels.astype(np.int64)) for number in range(1, sites + 1)}
    models = {"before": [np.array([0.2])], "after": [np.array([1.0])]}
    return comparison.compare(Guesser(), models, examples)  # type: ignore[arg-type]  # it only predicts


def names_on(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


def assert_names_lie_apart(figure: Any) -> None:
    figure.canvas.draw()
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        for one, other in combinations(boxes, 2):
            assert not one.overlaps(other)
        for box in boxes:
            assert figure.bbox.contains(box.x0, box.y0)
            assert figure.bbox.contains(box.x1, box.y1)


@pytest.mark.parametrize("name", ["roc.png", "precision_recall.png"])
def test_before_and_after_are_a_pair_in_a_panel_of_each_site(name: str, drawn: dict[str, Any], tmp_path: Path) -> None:
    comparison.draw(compared(3), tmp_path)
    panels = drawn[name].axes
    shown = [axes for axes in panels if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == [
        "rpi1: 30 images", "rpi2: 30 images", "rpi3: 30 images", "all sites: 90 images",
    ]  # fmt: skip
    for axes in shown:
        before, after = axes.get_lines()
        assert before.get_linewidth() > after.get_linewidth() + 1  # seen where both run together
        assert before.get_zorder() <= after.get_zorder()
        assert [text.partition(":")[0] for text in names_on(axes)] == ["before", "after"]
    assert_names_lie_apart(drawn[name])


def test_a_history_names_each_line_at_its_end(drawn: dict[str, Any], tmp_path: Path) -> None:
    epochs = [
        {"loss": 1 / n, "accuracy": 0.5, "validation_loss": 1 / n, "validation_accuracy": 0.5} for n in range(1, 6)
    ]
    pictures.draw_history(epochs, tmp_path / "history.png", "rpi1")
    for axes in drawn["history.png"].axes:
        assert sorted(names_on(axes)) == ["training", "validation"]
        assert len(axes.get_lines()) == 2
        assert axes.get_legend() is None
    assert_names_lie_apart(drawn["history.png"])


def test_names_of_lines_that_end_together_are_spread(drawn: dict[str, Any], tmp_path: Path) -> None:
    lines = [pictures.Line(f"line {n}", [(1, 0.5), (2, 0.9 - n / 1000)], "k") for n in range(8)]
    panel = pictures.Panel("many", ("round", "AUC"), [*lines, pictures.Line("low", [(1, 0.1), (2, 0.1)], "k")])
    pictures.draw_courses([panel], tmp_path / "many.png", "many")
    assert_names_lie_apart(drawn["many.png"])


def test_a_picture_is_a_png_and_a_disk_that_refuses_it_is_named(tmp_path: Path) -> None:
    pictures.draw_history([{"loss": 0.6, "accuracy": 0.7}], tmp_path / "one.png", "one epoch")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
