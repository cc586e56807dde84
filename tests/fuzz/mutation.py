"""Random changes of valid inputs: what damage, truncation and malice make of them."""

import random

INTERESTING = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x7f\xff\xff\xff",
    b"\xff" * 8,
)
"""Bytes at the limits of the integers that formats are made of."""


def mutate(data: bytes, draw: random.Random, most: int = 4) -> bytes:
    """Change `data` in 1 to `most` places."""
    for _ in range(draw.randint(1, most)):
        data = draw.choice((_flip, _overwrite, _insert, _delete, _repeat, _truncate, _swap))(data, draw)
    return data


def _place(data: bytes, draw: random.Random) -> int:
    """A position in `data`; every other time near the start, where headers are."""
    return draw.randrange(min(len(data), 128) if draw.random() < 0.5 else len(data)) if data else 0


def _flip(data: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    return data[:at] + bytes(byte ^ (1 << draw.randrange(8)) for byte in data[at : at + 1]) + data[at + 1 :]


def _overwrite(data: bytes, draw: random.Random) -> bytes:
    at, new = _place(data, draw), draw.choice(INTERESTING)
    return data[:at] + new + data[at + len(new) :]


def _insert(data: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    return data[:at] + draw.randbytes(draw.randint(1, 16)) + data[at:]


def _delete(data: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    return data[:at] + data[at + draw.randint(1, 64) :]


def _repeat(data: bytes, draw: random.Random) -> bytes:
    at, length = _place(data, draw), draw.randint(1, 64)
    return data[:at] + data[at : at + length] * draw.randint(2, 8) + data[at + length :]


def _truncate(data: bytes, draw: random.Random) -> bytes:
    return data[: _place(data, draw)]


def _swap(data: bytes, draw: random.Random) -> bytes:
    first, second = sorted((_place(data, draw), _place(data, draw)))
    length = draw.randint(1, 32)
    if first + length > second:
        return data
    one, other = data[first : first + length], data[second : second + length]
    return data[:first] + other + data[first + length : second] + one + data[second + length :]
