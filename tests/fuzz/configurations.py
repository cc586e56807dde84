"""Configuration files of every program: the examples with changed values, other YAML, and damaged bytes."""

import random
from pathlib import Path
from typing import Any

import yaml

from broker.settings import BrokerSection, ServeConfig
from common.config import load
from coordinator.config import WatchConfig
from coordinator.config import read_config as read_coordinator
from device.config import read_config as read_device
from tests.fuzz.mutation import mutate
from tests.fuzz.target import Attempt

EXAMPLES = Path(__file__).parents[2] / "config"
READERS = (
    read_coordinator,
    read_device,
    lambda path: load(path, ServeConfig),
    lambda path: load(path, WatchConfig),
    lambda path: load(path, BrokerSection),
)
SCALARS = (
    "no",
    "on",
    "~",
    "1e-3",
    "1e400",
    ".inf",
    ".nan",
    "0x1F",
    "0o777",
    "1:30:45",
    "2024-99-99",
    "2024-01-02",
    "-5",
    "9" * 400,
    "''",
    "'\\0'",
    "!!binary aGVsbG8=",
    "!!python/object/apply:os.getcwd []",
    "!!set {a, b}",
    "!!omap [a: 1]",
    "!!timestamp 1",
    "!!int x",
    "!!float x",
    "!!bool x",
    "*none",
    "&a [*a]",
    "{}",
    "[]",
    "[a, [b]]",
    "{a: 1, a: 2}",
    "{? [x] : y}",
    "<<",
    "|\n  text",
    "~nobody-there/x",
    "mqtt://10.0.0.2:1883",
    "[::1]:1883",
    "RPi_1",
    "\u2028",
    "%",
    "@x",
    "`x",
)
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
)
"""Nine levels of nine aliases: 387 million texts, where somebody writes them out."""


def begin(folder: Path) -> Attempt:
    """Read the examples."""
    examples = [path.read_text(encoding="utf-8") for path in sorted(EXAMPLES.glob("*.yaml"))]
    plain = [yaml.safe_load(text) for text in examples]
    path = folder / "any.yaml"

    def attempt(draw: random.Random) -> None:
        chance = draw.random()
        if chance < 0.4:
            data = mutate(draw.choice(examples).encode(), draw)
        elif chance < 0.8:
            data = _changed(draw.choice(examples), draw).encode("utf-8", "surrogatepass")
        else:
            data = _rebuilt(draw.choice(plain), draw)
        path.write_bytes(data)
        draw.choice(READERS)(path)

    return attempt


def _changed(text: str, draw: random.Random) -> str:
    """Give one to three keys another value."""
    lines = text.splitlines()
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(lines))
        key, colon, _value = lines[at].partition(":")
        if colon and not key.lstrip().startswith("#"):
            lines[at] = f"{key}: {draw.choice(SCALARS)}"
    if draw.random() < 0.1:
        lines.append(BOMB + "options: *a8")
    if draw.random() < 0.05:
        lines.append("x: " + "[" * 3000)
    return "\n".join(lines)


def _rebuilt(plain: dict[str, Any], draw: random.Random) -> bytes:
    """Write the example out again with one part of it replaced by another."""
    parts = list(plain.values()) or [None]
    changed: dict[Any, Any] = {**plain, draw.choice(list(plain) or ["x"]): draw.choice(parts)}
    if draw.random() < 0.3:
        changed[draw.choice((5, True, None, "x" * 1000, "bröker"))] = draw.choice(parts)
    data: bytes = yaml.safe_dump(changed, allow_unicode=True, encoding=draw.choice(("utf-8", "utf-16", "latin-1")))
    return data
