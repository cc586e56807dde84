"""The comparison as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.learning.variants import THREADS
from coordinator.rehearsal.results.figures import NEAR, Figure, Figures, VariantFigures
from coordinator.rehearsal.results.folds import ALPHA, Pool
from coordinator.rehearsal.results.grid import Grid, Recipe, Row

SEEDS = {
    "simple_cnn": "The project that it comes from told of about 88 % training accuracy in the middle and, after"
    " averaging, of about 89 % on the unseen images of client 1 (80 % before) and 80 % on those of client 2.",
    "mobilenet_v2": "The project that it comes from told of 83.12 % accuracy of the global model at best (round 70;"
    " loss .672), and of about 99 % of the clients on their own training images.",
}
"""The seed projects' own headline figures, by the model's name; both split at random."""
COLUMNS = (
    "near copies",
    "trained on",
    "accuracy",
    "AUC",
    "repeats",
    "sensitivity",
    "specificity",
    "rounds",
    "swing",
    "MB down",
    "MB up",
    "s",
    "reached in",
)
VARIANT_COLUMNS = ("model", "variant", "kB", "of float32", "accuracy", "AUC", "other labels", "difference", "ms")


@dataclass(frozen=True)
class Comparison:
    """All that was found: figures of every row of `grid`, and of the variants of those that were exported."""

    grid: Grid
    rows: Sequence[Figures]
    variants: Sequence[VariantFigures]
    pool: Pool


def document(comparison: Comparison, title: str) -> str:
    """Write it all."""
    grid, found, pool = comparison.grid, comparison.rows, comparison.pool
    parts = [f"# {title}", _introduction(grid, pool)]
    for model, recipe in grid.recipes.items():
        figures = [figures for figures in found if figures.row.model == model]
        parts += [f"## `{model}`", SEEDS.get(model, "No published figures of it are known."), _told(recipe)]
        parts += [table(figures), f"![AUC after each round](results-{model}.png)"]
    parts.append(_legend())
    if comparison.variants:
        parts += ["## TFLite", _variants_introduction(comparison.variants), variant_table(comparison.variants)]
    return "\n\n".join(parts) + "\n"


def table(found: Sequence[Figures]) -> str:
    """One line for each row; what reached the AUC of one training on all images of the same split, and when."""
    goals = {figures.row.keep_twins: figures.auc.value for figures in found if figures.row.setting == "once"}
    return _markdown(COLUMNS, (_cells(figures, goals.get(figures.row.keep_twins)) for figures in found))


def variant_table(found: Sequence[VariantFigures]) -> str:
    """One line for each variant of each row."""
    whole = {figures.row: figures.size for figures in found if figures.variant == "float32"}
    lines = (
        (
            f"`{figures.row.model}`",
            figures.variant,
            f"{figures.size / 1000:,.0f}",
            f"{figures.size / whole[figures.row]:.1%}".replace("%", " %"),
            _with_interval(figures.accuracy),
            _with_interval(figures.auc),
            f"{figures.other_labels:.1f}",
            f"{figures.max_difference:.2g}",
            f"{figures.milliseconds:.2f}",
        )
        for figures in found
    )
    return _markdown(VARIANT_COLUMNS, lines)


def _markdown(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, ["---"] * len(columns), *lines))


def name_of(row: Row) -> str:
    """Say what a row trains on."""
    skew = "" if row.skew == "none" else ", skewed"
    match row.setting:
        case "once":
            return "all images, one training"
        case "alone":
            return f"each of {row.sites} sites alone"
        case "rounds" if row.sites == 1:
            return "all images, in rounds"
        case "rounds":
            return f"{row.sites} sites{skew}, federated"


def _told(recipe: Recipe) -> str:
    once = {"epochs": recipe.training["epochs"] * recipe.rounds, **recipe.once}
    strategy = " with ".join(filter(None, (str(recipe.strategy["name"]), _listed(recipe.strategy))))
    sentences = (
        f"The model: {_listed(recipe.model['options'])}.",
        f"A round: {_listed(recipe.training)}; the rate falls by a cosine.",
        f"Sites are averaged by {strategy}.",
        f"One training: {_listed(once)}, a constant rate.",
        f"All images in rounds: {_listed(recipe.whole)}." if recipe.whole else "",
    )
    return " ".join(filter(None, sentences))


def _listed(options: Mapping[str, Any]) -> str:
    plain = {name: value for name, value in options.items() if name not in {"name", "schedule", "weights"}}
    return ", ".join(
        f"{name.replace('_', ' ')} {f'({_listed(value)})' if isinstance(value, Mapping) else value}"
        for name, value in plain.items()
    )


def _introduction(grid: Grid, pool: Pool) -> str:
    return (
        f"{len(pool.examples)} images, {len(pool.groups)} with near copies counted once, in {grid.folds} folds: every"
        " image is tested once, by a model that never saw it, and the folds are pooled. In brackets: 95 % intervals,"
        " bootstrap over groups of near copies. `make results IMAGES=folder WEIGHTS=file` repeats it.\n\n"
        "Rounds are simulated in one process by the learner, plans, strategy and aggregation of live rounds; a test"
        " shows that both come to the same bytes. Seconds are those that a core spent on training and aggregation,"
        " of all sites together; devices work side by side."
    )


def _legend() -> str:
    return (
        "- **near copies**: `together` in one fold and at one site; `parted` is a random split, as the seed projects"
        " had it, in which twins of a test image may have been trained on.\n"
        "- **all images, in rounds** is one site that holds all: as many passes, the same rates, nothing to average.\n"
        f"- **skewed**: each label shared out by a Dirichlet distribution with alpha {ALPHA}, drawn again until every"
        " site has both labels; otherwise stratified.\n"
        "- **repeats**: how often a row was done, with other seeds of folds, sites, initial weights and training, and"
        " the lowest and the highest AUC; the row's figures are means. So large is chance, and so much may another"
        " processor change, which rounds otherwise: compare no single runs.\n"
        "- **swing**: standard deviation of the pooled AUC over the last five rounds.\n"
        "- **MB down, up**: chunks of the global model, published once for all, and of the updates of all sites,"
        " without headers; chunks that did not change do not travel.\n"
        f"- **reached in**: the first round with an AUC at most {NEAR} below that of one training on all images of"
        " the same split, and the MB and seconds up to there.\n"
        "- A probability of .5 or more is the positive label."
    )


def _variants_introduction(found: Sequence[VariantFigures]) -> str:
    names = sorted({name_of(figures.row) for figures in found})
    return (
        f"The last global models of {' and '.join(names)}, as `fedpi-device export` writes them, over the images that"
        " their fold tests, pooled as above. The ranges of int8 were measured on what the first site trained on.\n\n"
        "- **other labels**: images that Keras labels otherwise, in a mean repeat.\n"
        "- **difference**: the largest from Keras's probabilities.\n"
        f"- **ms**: an image on this machine with {THREADS} threads, the median of the folds."
    )


def _cells(found: Figures, goal: float | None) -> tuple[str, ...]:
    row = found.row
    is_federated = row.setting == "rounds" and row.sites > 1
    return (
        "together" if row.keep_twins else "parted",
        name_of(row),
        *map(_with_interval, (found.accuracy, found.auc)),
        _repeated(found),
        *map(_with_interval, (found.sensitivity, found.specificity)),
        "-" if row.setting == "once" else str(found.rounds),
        "-" if found.swing is None else f"{found.swing:.3f}",
        f"{found.down[-1] / 1e6:.1f}" if is_federated else "-",
        f"{found.up[-1] / 1e6:.1f}" if is_federated else "-",
        f"{found.seconds[-1]:.0f}",
        _reached(found, goal) if is_federated and goal is not None else "-",
    )


def _repeated(found: Figures) -> str:
    if len(found.auc_by_repeat) == 1:
        return "-"
    return f"{len(found.auc_by_repeat)}: {min(found.auc_by_repeat):.3f} to {max(found.auc_by_repeat):.3f}"


def _reached(found: Figures, goal: float) -> str:
    if (number := found.reached(goal)) is None:
        return "not"
    megabytes = (found.down[number - 1] + found.up[number - 1]) / 1e6
    return f"{number}: {megabytes:.1f} MB, {found.seconds[number - 1]:.0f} s"


def _with_interval(figure: Figure) -> str:
    return f"{figure.value:.3f} [{figure.low:.2f}, {figure.high:.2f}]"
