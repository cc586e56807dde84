"""The table of faults: every row, by number."""

import os

from tests.faults import (
    rows_access,
    rows_brokers,
    rows_crashes,
    rows_hostile,
    rows_line,
    rows_machine,
    rows_peers,
    rows_people,
    rows_restore,
    rows_rivals,
    rows_twins,
)
from tests.faults.row import Row

_ALL = (
    *rows_line.ROWS,
    *rows_brokers.ROWS,
    *rows_access.ROWS,
    *rows_peers.ROWS,
    *rows_hostile.ROWS,
    *rows_crashes.ROWS,
    *rows_machine.ROWS,
    *rows_people.ROWS,
    *rows_restore.ROWS,
    *rows_rivals.ROWS,
    *rows_twins.ROWS,
)
ROWS: dict[int, Row] = {row.number: row for row in sorted(_ALL, key=lambda row: row.number)}


def obstacle(row: Row) -> str:
    """Say why this user cannot inject a row at all; nothing where it can be injected."""
    return f"row {row.number} needs root" if row.needs_root and os.geteuid() != 0 else ""
