"""`docs/protocol.md` against the code: its tables are read and held against structs, topics, constants and machines."""

import base64
import importlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import inspect

from broker.authority import private_pem
from common import bundle, chronicle, chunks, coordinators, health, messages, plan, skipped, topics, weights
from common.config import BrokerConfig, TransferConfig
from common.learning import evaluation, models, seam
from common.learning.augmentation import Augmentation
from common.learning.numpy_learner import NumpyOptions
from common.messages import Chunk, Hello, Invite, Offer, Ref, Want
from common.signing import find_peers
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
    for module in (bundle, messages, coordinators, plan, health, chronicle, chunks, weights)
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
        for power, less in ((value, ""), (value + 1, " - 1")):
            if power & (power - 1) == 0:
                return f"2^{power.bit_length() - 1}{less}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def up_to(limit: int | None) -> str:
    return "" if limit is None else f", up to {figure(limit)}"


def describe(kind: Any) -> str:  # noqa: C901, PLR0911, PLR0912 - one line a type
    """Put a field's type in the document's words."""
    match kind:
        case inspect.BoolType():
            return "boolean"
        case inspect.IntType():
            return f"integer, {figure(kind.ge)} to {figure(kind.le)}"  # type: ignore[arg-type]  # every field has both
        case inspect.FloatType(ge=None, gt=None):
            return "number"
        case inspect.FloatType():
            least = f"above {figure(kind.gt)}" if kind.gt is not None else figure(kind.ge)  # type: ignore[arg-type]
            most = f"below {figure(kind.lt)}" if kind.lt is not None else figure(kind.le)  # type: ignore[arg-type]
            return f"number, {least} to {most}"
        case inspect.StrType(pattern=str(pattern)):
            return WORDS[pattern]
        case inspect.StrType(max_length=None):
            return "text"
        case inspect.StrType():
            return f"text, {kind.min_length or 0} to {kind.max_length}"
        case inspect.BytesType():
            return f"bytes{up_to(kind.max_length)}"
        case inspect.DictType():
            return f"map of {describe(kind.key_type)} to {describe(kind.value_type)}{up_to(kind.max_length)}"
        case inspect.VarTupleType():
            sizes = up_to(kind.max_length) if not kind.min_length else f", {kind.min_length} to {kind.max_length}"
            return f"list of {describe(kind.item_type)}{sizes}"
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


def test_the_worked_messages_are_what_the_code_makes(example: Example) -> None:
    part: dict[str, Any] = {"device": "rpi1", "round": 3, "generation": "0a"}
    choice = plan.ModelChoice(name="numpy", options={"tensors": 2})
    packed = plan.write(
        plan.RoundPlan(round=3, generation="0a", base=example.ref, model=choice, training=plan.Training(epochs=1))
    )
    offer = Offer(**part, plan=plan.digest(packed), update=example.ref, num_examples=5, metrics={"loss": 0.25})
    made = (Hello(device="rpi1", nonce="1f"), packed, Invite(**part, plan=packed), offer)
    shown = [row[1].strip("`") for row in table("4.7 Worked messages")]
    assert shown == [(m if isinstance(m, bytes) else messages.encode(m)).hex() for m in made]


def test_the_largest_bodies_fill_a_stream_with_their_heads() -> None:
    found = re.search(r"at most (\d+) chunks of (\d+) bytes, or (\d+) of (\d+)", TEXT)
    assert found is not None
    for count, size in ((int(found[1]), int(found[2])), (int(found[3]), int(found[4]))):
        for more in (0, 1):
            body = (count + more) * size
            head = chunks.Head(body, size, bytes((count + more) * chunks.DIGEST_BYTES))
            layout = chunks.Layout(chunks.encode_head(head)[1].head_bytes, body, size)
            assert (layout.total <= chunks.MAX_CHUNKS) == (more == 0)


def test_the_worked_identity_is_what_the_code_makes() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
    line = f"coordinator {base64.b64encode(key.public_key().public_bytes_raw()).decode()}"
    assert find_peers(line)[1] == {}
    facts = {"federation": "lab", "name": "rpi1", "host": "192.168.1.5", "port": 8883, "peers": line + "\n"}
    der = base64.b64decode("".join(private_pem(key).splitlines()[1:-1]))
    made = bundle.facts(bundle.Bundle(format=1, ca="", certificate="", **facts))  # type: ignore[arg-type]
    assert [row[1].strip("`") for row in table("Worked identities")] == [line, der.hex(), made.hex()]
    assert f"`{bundle.FACTS}`" in TEXT


def test_the_topics_of_commands_name_every_message_that_travels_there() -> None:
    carried = {row[0].rpartition("/")[2].strip("`"): set(row[4].split(", ")) for row in table("2. Topics")}
    for topic, union in (("say", messages.Say), ("cmd", messages.Command)):
        assert carried[topic] == {kind.__name__ for kind in get_args(union)}


OPTIONS: dict[str, Any] = {
    "numpy": NumpyOptions,
    "simple_cnn": models.SimpleCnn,
    "extra_dense_cnn": models.ExtraDenseCnn,
    "mobilenet_v2": models.MobileNetV2,
    "augmentation": Augmentation,
}


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_the_options_of_a_built_in_model_are_described(name: str) -> None:
    known = set(models.SimpleCnn.__struct_fields__) if name == "extra_dense_cnn" else set()
    info = inspect.type_info(OPTIONS[name])
    assert isinstance(info, inspect.StructType)
    expected = [[f"`{f.encode_name}`", describe(f.type), default_of(f)] for f in info.fields if f.name not in known]
    assert [row[:3] for row in table(f"Options of {name}")] == expected


def test_every_built_in_model_is_described() -> None:
    named = {row[0].strip("`") for row in table("Tensors of the built-in models")}
    assert named == plan.BASE_MODELS == set(OPTIONS) - {"augmentation"} == set(seam.BUILT_IN_MODELS)


def test_the_figures_of_a_device_are_those_that_it_may_send() -> None:
    whole = set(evaluation.summarise(evaluation.evaluate(np.array([0.2, 0.9]), np.array([0, 1]))))
    held_out = {"loss", "accuracy", "auc"}
    expected = {"loss", "accuracy", skipped.METRIC, *(f"validation_{name}" for name in held_out)}
    expected |= {f"{prefix}{name}" for prefix in ("global_", "global_validation_") for name in whole}
    rows = table("Metrics of fedpi's device")
    assert {name.strip("`") for row in rows for name in row[0].split(", ")} == expected


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
