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
)
OUT_OF_REACH: tuple[int, ...] = tuple(row.number for row in _ALL if row.needs_root and os.geteuid() != 0)
"""Rows that this user cannot inject."""
ROWS: dict[int, Row] = {
    row.number: row for row in sorted(_ALL, key=lambda row: row.number) if row.number not in OUT_OF_REACH
}
