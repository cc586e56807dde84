"""Pictures of a demo run."""

from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.rehearsal.assessment import Assessment

if TYPE_CHECKING:
    from coordinator.store import LedgerRow

SIZE_INCHES = (7.0, 4.2)
DPI = 130


def plot_roc(before: Assessment, after: Assessment, path: Path, title: str) -> None:
    """Draw the ROC curves of the model before and after the rounds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5.2, 5.0), dpi=DPI, layout="constrained")
    for assessment, label, colour in ((before, "before the rounds", "0.55"), (after, "after the rounds", "tab:blue")):
        if assessment.roc:
            auc = assessment.together.auc or 0.0
            axes.plot(*zip(*assessment.roc, strict=True), color=colour, lw=2, label=f"{label}: AUC {auc:.3f}")
    axes.plot((0, 1), (0, 1), color="0.8", lw=1, ls="--", label="guessing")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_title(title, fontsize=10)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path)
    plt.close(figure)


def plot_rounds(ledger: "list[LedgerRow]", path: Path, title: str) -> None:
    """Draw each device's own figures over the rounds: loss while training, AUC of the global model before it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, (left, right) = plt.subplots(1, 2, figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    for device in sorted({row.device for row in ledger}):
        rows = [row for row in ledger if row.device == device and row.standing == "reported"]
        for axes, metric in ((left, "loss"), (right, "global_auc")):
            points = [(row.round, row.metrics[metric]) for row in rows if metric in row.metrics]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=device)
    left.set(xlabel="round", ylabel="binary cross-entropy", title="training loss on each device")
    right.set(xlabel="round", ylabel="AUC", title="global model on unseen images,\nas each round begins")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        if axes.has_data():
            axes.legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path)
    plt.close(figure)
