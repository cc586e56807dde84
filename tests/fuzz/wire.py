"""Messages, JSON documents, blob heads, bitmaps, topics and signed envelopes, damaged or made up."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgpack
import msgspec

from common import topics
from common.chunks import Head, digest_of, encode_head, from_wire, ref_of
from common.health import Health
from common.messages import (
    Chunk,
    Command,
    Invite,
    Offer,
    Ref,
    Say,
    Signed,
    Story,
    decode,
    decode_story,
    encode,
    encode_story,
)
from common.plan import ModelChoice, RoundPlan, Training, read, write
from common.weights import TensorSpec, nbytes
from tests.fuzz.mutation import mutate
from tests.fuzz.target import Attempt

BLOB = "ab" * 32
REF = Ref(id=BLOB, head_bytes=100, size=1000, chunk_bytes=4096)
PLAN = write(
    RoundPlan(
        round=7,
        generation="0a",
        base=REF,
        model=ModelChoice(name="simple_cnn", options={"image_size": 64}),
        training=Training(epochs=3),
    )
)
FIELDS: dict[str, Any] = {
    "device": "rpi1",
    "nonce": "0f" * 8,
    "by": "0e" * 8,
    "epoch": "0d" * 4,
    "round": 7,
    "generation": "0a",
    "blob": BLOB,
    "counted": True,
    "update": BLOB,
    "index": 3,
    "data": b"\0" * 40,
    "chunks": b"\xff\x01",
    "reason": "no memory",
    "body": b"\x80",
    "signature": "1.2.abc",
    "num_examples": 12,
    "state": "online",
    "federation": "brain",
    "phase": "reporting",
    "release": "r3-abc",
    "model": REF,
    "labels": ("no", "yes"),
    "event": "training",
    "text": "It trains.",
    "request": "0c" * 8,
    "ok": True,
}


def begin(_folder: Path) -> Attempt:
    """Make a valid example of everything that travels."""
    kinds = {kind for union in (Say, Command, Signed | Chunk) for kind in get_args(union)}
    messages = [encode(_example(kind)) for kind in sorted(kinds, key=lambda kind: kind.__name__)]
    documents = [(encode_story(_example(kind)), kind) for kind in get_args(Story)]
    head = _head()
    names = [topics.topic(kind, "brain", device="rpi1", blob=BLOB) for kind in topics.Kind]
    kinds_of_input: list[Callable[[random.Random], object]] = [
        lambda draw: decode(_damaged(draw.choice(messages), draw), draw.choice((Say, Command, Chunk, Signed, Invite))),
        lambda draw: decode(_made_up(draw), draw.choice((Say, Command, Chunk, Signed))),
        lambda draw: _read_document(*draw.choice(documents), draw),
        lambda draw: ref_of(_damaged(head, draw)),
        lambda draw: read(_damaged(PLAN, draw)),
        lambda draw: from_wire(draw.randbytes(draw.randint(0, 40)), draw.randint(1, 2**17)),
        lambda draw: topics.parse(mutate(draw.choice(names).encode(), draw).decode("utf-8", "replace")),
    ]
    weights = [36, 22, 20, 8, 7, 3, 4]

    def attempt(draw: random.Random) -> None:
        draw.choices(kinds_of_input, weights)[0](draw)

    return attempt


def _read_document(document: bytes, kind: Any, draw: random.Random) -> None:
    decode_story(mutate(document, draw), draw.choice((kind, kind, *get_args(Story))))


def _example(kind: Any) -> Any:
    """Return a valid message of `kind`."""
    special: dict[Any, dict[str, Any]] = {
        Invite: {"plan": PLAN},
        Offer: {"plan": BLOB, "update": REF, "metrics": {"loss": 0.5}},
    }
    known = {**FIELDS, **special.get(kind, {})}
    names = [field.name for field in msgspec.structs.fields(kind) if field.name in known or field.required]
    values = {name: known[name] for name in names}
    if kind.__name__ == "DeviceStatus":
        values["health"] = Health()
    return kind(**values)


def _head() -> bytes:
    spec = (TensorSpec("dense/kernel", (30, 2), "float32"), TensorSpec("dense/bias", (2,), "float32"))
    size = nbytes(spec)
    return encode_head(Head(size=size, chunk_bytes=4096, digests=digest_of(b"\0" * size), spec=spec))[0]


def _damaged(packed: bytes, draw: random.Random) -> bytes:
    """Change bytes, or one value of the map, which keeps the rest well-formed."""
    if draw.random() < 0.5:
        return mutate(packed, draw)
    plain = msgpack.unpackb(packed)
    plain[draw.choice(list(plain))] = _value(draw, 3)
    if draw.random() < 0.2:
        plain[draw.choice(("type", "device", "extra", "\ud7ff"))] = _value(draw, 1)
    return _pack(plain)


def _made_up(draw: random.Random) -> bytes:
    if draw.random() < 0.3:
        return draw.randbytes(draw.randint(0, 60))
    if draw.random() < 0.1:
        return bytes([draw.choice((0x81, 0x91, 0xDC, 0xDE))]) * draw.randint(1, 3000)  # nested deeply
    return _pack(_value(draw, 4))


def _pack(plain: Any) -> bytes:
    packed: bytes = msgpack.packb(plain, use_bin_type=True, strict_types=False)
    return packed


def _value(draw: random.Random, depth: int) -> Any:
    """Return any value that msgpack can carry."""
    simple: list[Any] = [
        None,
        True,
        draw.choice((0, 1, -1, 2**53, 2**53 + 1, 2**63, 2**64 - 1, -(2**63))),
        draw.choice((0.0, -0.0, 1e308, -1e308, float("inf"), float("nan"))),
        draw.choice(("", "Chunk", "rpi1", "a" * draw.randint(1, 600), "\n", "ab" * 32, "é")),
        draw.randbytes(draw.randint(0, 40)),
        msgpack.ExtType(draw.randint(0, 127), b"x" * draw.randint(0, 16)),
        msgpack.Timestamp(draw.randint(-(2**40), 2**40)),
    ]
    if depth and draw.random() < 0.4:
        if draw.random() < 0.5:
            return [_value(draw, depth - 1) for _ in range(draw.randint(0, 4))]
        keys = (*FIELDS, "type", "metrics", "plan", "options", "spec", "size", 5, b"k")
        return {draw.choice(keys): _value(draw, depth - 1) for _ in range(draw.randint(0, 6))}
    return draw.choice(simple)
