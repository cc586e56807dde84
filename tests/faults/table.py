"""The table of faults: every row, by number."""

from tests.faults import rows_access, rows_brokers, rows_hostile, rows_line, rows_peers
from tests.faults.row import Row

_ALL = (*rows_line.ROWS, *rows_brokers.ROWS, *rows_access.ROWS, *rows_peers.ROWS, *rows_hostile.ROWS)
ROWS: dict[int, Row] = {row.number: row for row in sorted(_ALL, key=lambda row: row.number)}
