"""CSVs of `file,label`, as programs write them and damaged, beside a folder of files."""

import random
from pathlib import Path

from common.learning.label_csv import read_label_csv
from tests.fuzz.mutation import mutate
from tests.fuzz.target import Attempt

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "utf-32")
CELLS = (
    "",
    " ",
    '"',
    '""',
    "a\0b",
    "..",
    "/etc/passwd",
    "no\\a.png",
    "C:\\images\\a.png",
    "~nobody/a.png",
    "é.png",
    "é.png",
    "2",
    "-1",
    "nan",
    "yes\r",
    "x" * 5000,
    "\ud800",
    "=1+1",
)
HEADERS = (
    "file,label",
    "File;Label",
    "path\tclass",
    " filename , target ",
    "label,file,extra",
    "file,file,label",
    "",
    "name,value",
)


def begin(folder: Path) -> Attempt:
    """Make the files that the CSVs name."""
    for name in ("no/a.png", "no/b c.png", "yes/é.png", "yes/d.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    table = folder / "labels.csv"

    def attempt(draw: random.Random) -> None:
        table.write_bytes(_table(draw))
        read_label_csv(table, draw.choice((None, folder, folder / "no")), ("no", "yes"))

    return attempt


def _table(draw: random.Random) -> bytes:
    rows = [("no/a.png", "no"), ("no/b c.png", "0"), ("yes/é.png", "YES"), ("yes/d.png", "1")]
    header = "file,label" if draw.random() < 0.6 else draw.choice(HEADERS)
    separator = "," if draw.random() < 0.8 else draw.choice(";\t, |")
    lines = [header, *(separator.join(_cell(cell, draw) for cell in row) for row in rows)]
    if draw.random() < 0.1:
        lines *= draw.randint(2, 2000)
    text = draw.choice(("\n", "\r\n", "\r", "\n\n")).join(lines)
    data = text.encode("utf-8" if draw.random() < 0.7 else draw.choice(ENCODINGS), "replace")
    return data if draw.random() < 0.4 else mutate(data, draw)


def _cell(cell: str, draw: random.Random) -> str:
    chance = draw.random()
    if chance < 0.8:
        return cell
    return draw.choice(CELLS) if chance < 0.95 else f'"{cell}"'
