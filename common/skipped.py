"""What a device's data holds that cannot be used, as a sentence of its status, and found again in one. Pure."""

from collections.abc import Sequence

METRIC = "skipped_files"
"""Name of the metric that an update carries."""
START = "Files left out: "
_TOO_MANY = "more than data.max_skipped_share"
_SHOWN = 200


def sentence(usable: int, skipped: int, first: Sequence[str], max_share: float) -> str:
    """Say how many files are left out and which is the first; nothing where none is."""
    if not skipped:
        return ""
    beyond = f", {_TOO_MANY} ({max_share:g}) allows" if skipped > max_share * (usable + skipped) else ""
    shown = f"; the first is {first[0][:_SHOWN]}" if first else ""
    return f"{START}{skipped} of {usable + skipped}{beyond}{shown}"


def without(status: str) -> str:
    """Return the text of a status without that sentence, which is its last."""
    return status.partition(START)[0].rstrip()


def too_many(status: str) -> str:
    """Return the sentence where the text of a status says that more is left out than the device may leave out."""
    _, found, rest = status.partition(START)
    return found + rest if _TOO_MANY in rest else ""
