"""Pictures of a demo run."""

from collections.abc import Sequence
from pathlib import Path

from common.learning.pictures import COLOURS, PALE, Line, Panel, draw_courses, draw_curves
from coordinator.rehearsal.assessment import Alone, Assessment
from coordinator.store import LedgerRow


def plot_roc(models: tuple[Assessment, Alone, Assessment], path: Path, title: str) -> None:
    """Draw the ROC curves of the model before the rounds, of each site alone and of the model after the rounds."""
    before, alone, after = models
    lines = [Line("guessing", [(0, 0), (1, 1)], "0.85", 1.0, "--"), _roc("before the rounds", before, PALE, 3.0)]
    lines += [
        _roc(f"{site} alone", found, colour, 1.2)
        for (site, found), colour in zip(alone.sites.items(), COLOURS[1:], strict=False)
    ]
    lines.append(_roc("after the rounds", after, COLOURS[0], 2.2))
    draw_curves([Panel(title, ("false positive rate", "true positive rate"), lines)], path, "")


def plot_rounds(ledger: Sequence[LedgerRow], after: Assessment, path: Path, title: str) -> None:
    """Draw each site's figures over the rounds: loss in training, and AUC of the global model on its unseen images.

    The AUC is that of the model after so many rounds; the last comes from `after`, since no round began with it.
    """
    loss, auc = [], []
    for device, colour in zip(sorted({row.device for row in ledger}), COLOURS, strict=False):
        rows = [row for row in ledger if row.device == device and row.standing == "reported"]
        loss.append(Line(device, _points(rows, "loss", 0), colour, marker="."))
        points = _points(rows, "global_auc", 1)
        last = after.sites[device].auc if device in after.sites else None
        if points and last is not None:
            points.append((points[-1][0] + 1, last))
        auc.append(Line(f"{device} {points[-1][1]:.2f}" if points else device, points, colour, marker="."))
    panels = [
        Panel("training loss at each site", ("round", "binary cross-entropy"), loss),
        Panel("global model on each site's unseen images", ("rounds done", "AUC"), auc),
    ]
    draw_courses(panels, path, title)


def _points(rows: Sequence[LedgerRow], metric: str, earlier: int) -> list[tuple[float, float]]:
    return [(float(row.round - earlier), row.metrics[metric]) for row in rows if metric in row.metrics]


def _roc(name: str, found: Assessment, colour: str, width: float) -> Line:
    auc = "" if found.together.auc is None else f": AUC {found.together.auc:.3f}"
    return Line(name + auc, found.roc, colour, width)
