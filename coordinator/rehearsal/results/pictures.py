"""The comparison as pictures."""

from collections.abc import Callable, Sequence
from pathlib import Path

from common.learning.pictures import COLOURS, PALE, Line, Panel, draw_courses
from coordinator.rehearsal.results.document import name_of
from coordinator.rehearsal.results.figures import Figures
from coordinator.rehearsal.results.grid import Row

PANELS: tuple[tuple[str, Callable[[Row], bool]], ...] = (
    ("federated, central, alone", lambda row: row.skew == "none" and row.sites in {1, 5}),
    ("number of sites", lambda row: row.skew == "none" and row.setting == "rounds" and row.sites > 1),
    ("sites whose labels are skewed", lambda row: row.skew != "none"),
)
"""What each panel shows beside the one training on all images."""


def plot_rounds(found: Sequence[Figures], path: Path) -> None:
    """Draw the pooled AUC after each round where near copies are kept together, few lines a panel.

    Raises ConfigError where matplotlib is missing, WorkError where the disk fails.
    """
    kept = [figures for figures in found if figures.row.keep_twins]
    once = [_level(figures) for figures in kept if figures.row.setting == "once"]
    panels = []
    for title, is_shown in PANELS:
        shown = [figures for figures in kept if figures.row.setting != "once" and is_shown(figures.row)]
        lines = [_course(figures, colour) for figures, colour in zip(shown, COLOURS, strict=False)]
        if lines:
            panels.append(Panel(title, ("round", "AUC, all folds pooled"), [*once, *lines]))
    draw_courses(panels, path, "AUC on images never trained on, after each round", is_shared=True)


def _level(figures: Figures) -> Line:
    """A level line over all rounds: what one training comes to, which has none."""
    value = figures.auc.value
    return Line(f"{name_of(figures.row)} {value:.3f}", [(1, value)], PALE, 1.5, "--", is_level=True)


def _course(figures: Figures, colour: str) -> Line:
    points = [(float(number), value) for number, value in enumerate(figures.auc_by_round, 1)]
    return Line(f"{name_of(figures.row)} {points[-1][1]:.3f}", points, colour)
