"""The comparison as pictures."""

from collections.abc import Sequence
from pathlib import Path

from coordinator.rehearsal.plots import DPI
from coordinator.rehearsal.results.document import name_of
from coordinator.rehearsal.results.figures import Figures


def plot_rounds(found: Sequence[Figures], path: Path) -> None:
    """Draw the pooled AUC after each round where near copies are kept together, and a line for one training."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axes = plt.subplots(figsize=(8.0, 4.6), dpi=DPI, layout="constrained")
    for figures in found:
        if not figures.row.keep_twins:
            continue
        if figures.row.setting == "once":
            axes.axhline(figures.auc.value, color="0.4", ls="--", label=name_of(figures.row))
            continue
        style = "--" if figures.row.skew != "none" else ":" if figures.row.setting == "alone" else "-"
        axes.plot(range(1, figures.rounds + 1), figures.auc_by_round, ls=style, label=name_of(figures.row))
    axes.set(xlabel="round", ylabel="AUC on images never trained on, folds pooled")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path)
    plt.close(figure)
