"""`docs/protocol.md` against the code: its tables are read and held against structs, topics, constants and machines."""

import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import inspect

from common import chronicle, chunks, health, messages, plan, topics, weights
from common.config import BrokerConfig, TransferConfig
from common.messages import Chunk, Ref, Want
from coordinator import story
from coordinator.options import RoundOptions
from device.config import HealthConfig, ServingConfig, SessionConfig

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
WORDS = {
    topics.NAME_PATTERN: "name",
    r"^[0-9a-f]{64}\Z": "blob id",
    r"^[0-9a-f]{1,32}\Z": "token",
}
SECTIONS = {
    "broker": BrokerConfig,
    "health": HealthConfig,
    "round": RoundOptions,
    "serving": ServingConfig,
    "session": SessionConfig,
    "transfer": TransferConfig,
}
STRUCTS: dict[str, Any] = {
    name: found
    for module in (messages, plan, health, chronicle, chunks, weights)
    for name, found in vars(module).items()
    if isinstance(found, type) and issubclass(found, msgspec.Struct) and found.__module__ == module.__name__
    if not name.startswith("_") and name != "Wire"
}


def table(heading: str) -> list[list[str]]:
    """Read the first table below a heading, without its header."""
    below = TEXT.split(f"# {heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)
    assert rows is not None, heading
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[0].splitlines()[2:]]


# ---- messages -------------------------------------------------------------------------------


def figure(value: float) -> str:
    if isinstance(value, int) and value >= 2**20:
        power, less = (value, "") if value & (value - 1) == 0 else (value + 1, " - 1")
        assert power & (power - 1) == 0
        return f"2^{power.bit_length() - 1}{less}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def up_to(limit: int | None) -> str:
    return "" if limit is None else f", up to {figure(limit)}"


def describe(kind: Any) -> str:  # noqa: C901, PLR0911 - one line a type
    """Put a field's type in the document's words."""
    match kind:
        case inspect.BoolType():
            return "boolean"
        case inspect.IntType():
            return f"integer, {figure(kind.ge)} to {figure(kind.le)}"  # type: ignore[arg-type]  # every field has both
        case inspect.FloatType(le=None):
            return "number"
        case inspect.FloatType():
            least = f"above {figure(kind.gt)}" if kind.gt is not None else figure(kind.ge)  # type: ignore[arg-type]
            return f"number, {least} to {figure(kind.le)}"  # type: ignore[arg-type]  # None is matched above
        case inspect.StrType(pattern=str(pattern)):
            return WORDS[pattern]
        case inspect.StrType():
            return f"text, {kind.min_length or 0} to {kind.max_length}"
        case inspect.BytesType():
            return f"bytes{up_to(kind.max_length)}"
        case inspect.DictType():
            return f"map of {describe(kind.key_type)} to {describe(kind.value_type)}{up_to(kind.max_length)}"
        case inspect.VarTupleType():
            return f"list of {describe(kind.item_type)}{up_to(kind.max_length)}"
        case inspect.LiteralType():
            return ", ".join(f"`{value}`" for value in kind.values)
        case inspect.UnionType():
            return " or ".join(describe(member) for member in kind.types)
        case inspect.StructType():
            return kind.cls.__name__
    return {inspect.NoneType: "nil", inspect.AnyType: "any"}[type(kind)]


def default_of(field: inspect.Field) -> str:
    if field.required:
        return ""
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return "`nil`" if value is None else f"`{json.dumps(msgspec.to_builtins(value))}`"


@pytest.mark.parametrize("name", sorted(STRUCTS))
def test_a_struct_is_described_field_by_field(name: str) -> None:
    info = inspect.type_info(STRUCTS[name])
    assert isinstance(info, inspect.StructType)
    expected = [[f"`{f.encode_name}`", describe(f.type), default_of(f)] for f in info.fields]
    assert [row[:3] for row in table(name)] == expected


def test_no_message_is_described_that_does_not_exist() -> None:
    assert set(re.findall(r"^####? ([A-Z][A-Za-z]+)$", TEXT, re.MULTILINE)) == set(STRUCTS)


def test_the_words_for_text_are_the_patterns() -> None:
    shown = {word: pattern.replace(r"\Z", "$") for pattern, word in WORDS.items()}
    assert {row[0]: row[1].split("`")[1] for row in table("3. Encodings")} == shown


def test_all_dtypes_are_listed() -> None:
    line = re.search(r"^dtypes: (.*)\.$", TEXT, re.MULTILINE)
    assert line is not None
    assert tuple(line[1].replace("`", "").split(", ")) == weights.DTYPES


def test_all_kinds_of_events_are_listed() -> None:
    said = {"round-metrics", *(event for event, _ in story._TOLD.values())}  # noqa: SLF001 - the only list there is
    source = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "device").glob("*.py")))
    said |= set(re.findall(r"_event\(\"([a-z-]+)\"", source)) | set(re.findall(r"return \"(release-[a-z]+)\"", source))
    assert "training" in said
    listed = TEXT.split("Kinds from the coordinator:", 1)[1].split("More may come", 1)[0]
    assert set(re.findall(r"`([a-z-]+)`", listed)) == said


def test_the_table_of_topics_is_the_codes() -> None:
    expected = [
        [
            f"`{row.pattern}`",
            row.publisher.value,
            ", ".join(reader.value for reader in row.readers) or "people only",
            "yes" if row.retained else "no",
            row.carries,
        ]
        for row in topics.TABLE
    ]
    assert table("2. Topics") == expected


# ---- bytes and numbers ----------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """The blob of the worked example, made by the code."""

    body: bytes
    head: bytes
    ref: Ref


@pytest.fixture(scope="module")
def example() -> Example:
    tensors = [np.array([1, -2, 0.5], np.float32), np.array([7], np.int32)]
    spec = weights.spec_of(["w", "n"], tensors)
    body = weights.pack(spec, tensors)
    hasher = chunks.ChunkHasher(4096)
    hasher.update(body)
    return Example(body, *chunks.encode_head(hasher.head(spec)))


def test_the_worked_example_is_what_the_code_makes(example: Example) -> None:
    blob = example.ref.id
    made = {
        "body": example.body.hex(),
        "head": example.head.hex(),
        "id": blob,
        "Want of chunks 0 and 1 by `rpi1`": messages.encode(Want(device="rpi1", blob=blob, chunks=b"\x03")).hex(),
        "Chunk 1": messages.encode(Chunk(blob=blob, index=1, data=example.body)).hex(),
        "bitmap of chunks 0, 3 and 9": chunks.to_wire(1 << 0 | 1 << 3 | 1 << 9).hex(),
    }
    assert {row[0]: row[1].strip("`") for row in table("A worked example")} == made


def test_the_worked_examples_ref_and_stream_are_as_said(example: Example) -> None:
    ref, total = example.ref, chunks.layout_of(example.ref).total
    assert f"has `head_bytes` {ref.head_bytes} and `size` {ref.size}. The stream has {total} chunks" in TEXT


def value_of(name: str) -> float:
    """Look up a configuration key's default, or a constant."""
    section, _, key = name.rpartition(".")
    found = getattr(SECTIONS[section]() if section in SECTIONS else importlib.import_module(section), key)
    return float(found)


@pytest.mark.parametrize("heading", ["11. Timers", "12. Limits"])
def test_defaults_and_limits_are_the_codes(heading: str) -> None:
    stated = {row[0].strip("`"): float(row[1].removesuffix(" s")) for row in table(heading)}
    assert stated == {name: value_of(name) for name in stated}
