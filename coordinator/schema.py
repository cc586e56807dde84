"""The journal's tables, and how one of an earlier version becomes one of this. Text only."""

VERSION = 3
TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rounds (
  round INTEGER PRIMARY KEY, run INTEGER NOT NULL, phase TEXT NOT NULL, state TEXT NOT NULL,
  opened REAL NOT NULL, closed REAL, bytes_down INTEGER NOT NULL DEFAULT 0, bytes_up INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS ledger (
  round INTEGER NOT NULL, device TEXT NOT NULL, standing TEXT NOT NULL, reason TEXT NOT NULL,
  num_examples INTEGER NOT NULL, update_id TEXT NOT NULL, metrics TEXT NOT NULL,
  offers INTEGER NOT NULL DEFAULT 0, update_ref TEXT NOT NULL DEFAULT 'null', PRIMARY KEY (round, device)
);
CREATE TABLE IF NOT EXISTS runs (
  run INTEGER PRIMARY KEY, rounds INTEGER NOT NULL, state TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS releases (
  release TEXT PRIMARY KEY, model TEXT NOT NULL, round INTEGER NOT NULL, labels TEXT NOT NULL, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS devices (
  device TEXT PRIMARY KEY, state TEXT NOT NULL, doing TEXT NOT NULL, release TEXT NOT NULL, seen REAL NOT NULL,
  refused INTEGER NOT NULL DEFAULT 0, health TEXT NOT NULL DEFAULT 'null'
);
"""
UNDER_WAY = "('invited', 'accepted', 'delivering')"
"""Standings of an open round only."""
INDEXES = (
    "DROP INDEX IF EXISTS ledger_by_device",
    f"CREATE INDEX IF NOT EXISTS ledger_settled ON ledger (round, device, standing) WHERE standing NOT IN {UNDER_WAY}",
    "CREATE INDEX IF NOT EXISTS rounds_by_phase ON rounds (phase, round, bytes_down, bytes_up)",
    "CREATE INDEX IF NOT EXISTS rounds_by_run ON rounds (run)",
)
"""What counting is quick by. They belong to no version: a fedpi that knows nothing of them keeps them up to date.

A device's way through an open round changes none but at its end, and there rows of one round are neighbours. In the
earlier `ledger_by_device` each device's were, so that every change wrote a page of its own once the journal was long.
"""
STANDINGS = f"""
SELECT device, standing, COUNT(*) FROM ledger WHERE standing NOT IN {UNDER_WAY} GROUP BY device, standing
UNION ALL SELECT device, standing, 1 FROM ledger
WHERE round = (SELECT MAX(round) FROM rounds) AND standing IN {UNDER_WAY}
"""  # noqa: S608 - words of our own
"""Counts rounds by device and standing, by the index of those that are settled."""
UPGRADES = {
    1: """
ALTER TABLE devices ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN health TEXT NOT NULL DEFAULT 'null';
""",
    2: """
ALTER TABLE ledger ADD COLUMN offers INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN update_ref TEXT NOT NULL DEFAULT 'null';
""",
}
"""What makes the version after it of a journal of that version."""


def statements(version: int) -> list[str]:
    """Return the SQL that makes a journal of `version`, 0 for an empty file, one of this version."""
    steps = [TABLES] if version == 0 else [UPGRADES[number] for number in range(version, VERSION)]
    steps.append(f"PRAGMA user_version = {VERSION}")
    return [statement for step in steps for statement in step.split(";") if statement.strip()]
