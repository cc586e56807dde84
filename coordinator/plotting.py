"""What the ledger says of every device's training, as pictures and as event files."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from common.errors import DataError
from coordinator.store import Store

GLOBAL = "global"
"""The run of the rounds' own metrics, beside one run a device."""


def draw(store: Store, out: Path) -> list[Path]:
    """Write `DEVICE_training_history.png` for every device that reported, and `events/` for TensorBoard.

    Raises DataError where no round is committed yet, ConfigError where a library is missing, WorkError where the
    disk fails.
    """
    from common.learning.event_files import write_events
    from common.learning.pictures import draw_history

    runs: dict[str, list[tuple[int, Mapping[str, float]]]] = defaultdict(list)
    for row in store.ledger():
        if row.standing == "reported" and row.metrics:
            runs[row.device].append((row.round, row.metrics))
    if not runs:
        raise DataError("no device has reported metrics yet, so there is nothing to draw; run a round first")
    paths = []
    for device, steps in sorted(runs.items()):
        path = out / f"{device}_training_history.png"
        draw_history([metrics for _, metrics in steps], path, device, x="round that it reported in")
        paths.append(path)
    rounds = [(row.round, row.metrics) for row in store.rounds() if row.phase == "committed" and row.metrics]
    write_events(out / "events", {**runs, **({GLOBAL: rounds} if rounds else {})})
    return paths
