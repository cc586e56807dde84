"""Figures and states in the words and colours of a table. Pure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from common.messages import Metrics

if TYPE_CHECKING:
    from rich.text import Text

HEADLINES = ("global_auc", "global_accuracy", "accuracy", "loss")
"""What a row has room for, the most telling first; `global_` is the global model on images that nobody trains on."""

GOOD = frozenset({"online", "reported", "committed"})
BAD = frozenset({"offline", "declined", "failed", "refused", "missing", "void"})
UNTIL_CLOSE = {
    "invited": "had not answered its invitation when the round closed",
    "accepted": "sent no update before the round closed",
    "delivering": "had not delivered all of its update when the round closed",
}
"""Why a device is missing, by its standing when the round closed."""
_PLAIN = {"abandoned": "void"}
"""What people are told for a word of the journal and of the messages."""


BARS = "▁▂▃▄▅▆▇█"


def styled(state: str) -> "Text":
    """Colour the word for how a device or a round stands."""
    from rich.text import Text

    word = plain(state)
    return Text(word, style="green" if word in GOOD else "red" if word in BAD else "")


def plain(state: str) -> str:
    """Return the word for how a device or a round stands that sentences have, too."""
    return _PLAIN.get(state, state)


def size(count: int) -> str:
    """Write bytes in decimal units, as brokers and networks count them."""
    from rich.filesize import decimal

    return decimal(count)


def duration(seconds: float) -> str:
    """Write seconds so that two of them compare at a glance."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def ago(then: float, now: float) -> str:
    """Write how long ago a Unix time was; a clock that was set back gives 0."""
    return f"{duration(max(now - then, 0.0))} ago"


def figures(metrics: Metrics) -> str:
    """Write all metrics."""
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def headline(metrics: Metrics) -> str:
    """Write the two metrics that say most."""
    return figures({name: metrics[name] for name in telling(metrics)[:2]})


def telling(metrics: Metrics) -> list[str]:
    """Name all metrics, the most telling first."""
    return [*(name for name in HEADLINES if name in metrics), *(name for name in metrics if name not in HEADLINES)]


def count(number: int, noun: str) -> str:
    """Write a number and its noun, which takes an s."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def sparkline(values: Sequence[float]) -> str:
    """Draw figures as bars of one row, from the lowest of them to the highest."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    top = len(BARS) - 1
    return "".join(BARS[round((value - low) / (high - low) * top) if high > low else 0] for value in values)
