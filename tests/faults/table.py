"""The table of faults: every row, by number."""

from tests.faults import rows_access, rows_brokers, rows_line
from tests.faults.row import Row

_ALL = (*rows_line.ROWS, *rows_brokers.ROWS, *rows_access.ROWS)
ROWS: dict[int, Row] = {row.number: row for row in sorted(_ALL, key=lambda row: row.number)}
