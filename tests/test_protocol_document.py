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

from common import chronicle, chunks, health, messages, topics, weights
from common.config import BrokerConfig, TransferConfig
from common.messages import Chunk, Invite, ModelChoice, Offer, Plan, Ref, RoundStatus, Want
from coordinator import events, story
from coordinator.admission import Limits
from coordinator.config import RoundConfig
from coordinator.round import Member, Phase, Round, Rules, Standing, step
from device import session as sessions
from device.config import HealthConfig, ServingConfig, SessionConfig
from device.session import Session, Stage, Task

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
    "round": RoundConfig,
    "serving": ServingConfig,
    "session": SessionConfig,
    "transfer": TransferConfig,
}
STRUCTS: dict[str, Any] = {
    name: found
    for module in (messages, health, chronicle, chunks, weights)
    for name, found in vars(module).items()
    if isinstance(found, type) and issubclass(found, msgspec.Struct) and found.__module__ == module.__name__
    if not name.startswith("_")
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
        assert value & (value - 1) == 0
        return f"2^{value.bit_length() - 1}"
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
    return "`nil`" if value is None else f"`{json.dumps(value)}`"


@pytest.mark.parametrize("name", sorted(STRUCTS))
def test_a_struct_is_described_field_by_field(name: str) -> None:
    info = inspect.type_info(STRUCTS[name])
    assert isinstance(info, inspect.StructType)
    expected = [[f"`{f.encode_name}`", describe(f.type), default_of(f)] for f in info.fields]
    assert [row[:3] for row in table(name)] == expected


def test_no_message_is_described_that_does_not_exist() -> None:
    assert set(re.findall(r"^####? ([A-Z][A-Za-z]+)$", TEXT, re.MULTILINE)) == set(STRUCTS)


def test_the_words_for_text_are_the_patterns() -> None:
    assert {row[0]: row[1].split("`")[1] for row in table("3. Encodings")} == {w: p for p, w in WORDS.items()}


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


# ---- states ---------------------------------------------------------------------------------

BASE = Ref(id="ba" * 32, head_bytes=100, size=1000, chunk_bytes=4096)
UPDATE = Ref(id="cd" * 32, head_bytes=100, size=1000, chunk_bytes=4096)
PLAN = Plan(model=ModelChoice(name="numpy"))
INVITE = Invite(device="a", round=1, base=BASE, plan=PLAN)
OFFER = Offer(device="a", round=1, base=BASE.id, update=UPDATE, num_examples=10)


def a_round(phase: str, minimum: int = 1, **standings: str) -> Round:
    """Build a round of the devices `standings`, begun at time 0, with 10 s for each phase."""
    rules = Rules(goal=2, minimum=minimum, selection_s=10, deadline_s=10, grace_s=0)
    members = tuple(
        Member(device=d, standing=Standing(s), update=UPDATE if s in {"delivering", "reported"} else None)
        for d, s in standings.items()
    )
    return Round(number=1, base=BASE, plan=PLAN, rules=rules, limits=Limits(), phase=Phase(phase), members=members)


STOPS = events.Cancelled(reason="stopped")
PHASE_PLAYS: dict[str, tuple[Round, events.Event]] = {
    "goal devices have checked in": (a_round("selecting", b="joined"), events.CheckedIn(device="a")),
    "`selection_s` has passed, at least minimum have checked in": (a_round("selecting", b="joined"), events.Tick()),
    "`selection_s` has passed, fewer have checked in": (a_round("selecting", 2, b="joined"), events.Tick()),
    "every member is settled, at least minimum reported": (
        a_round("reporting", a="accepted", b="reported"),
        events.Failed(device="a", reason="x"),
    ),
    "every member is settled, fewer reported": (
        a_round("reporting", 2, a="accepted", b="reported"),
        events.Declined(device="a", reason="x"),
    ),
    "`deadline_s` has passed, at least minimum reported": (
        a_round("reporting", a="accepted", b="reported"),
        events.Tick(),
    ),
    "`deadline_s` has passed, fewer reported": (a_round("reporting", 2, a="accepted", b="reported"), events.Tick()),
    "the new model is stored": (a_round("aggregating", b="reported"), events.Aggregated(result=UPDATE)),
    "the operator stops it, selecting": (a_round("selecting", b="joined"), STOPS),
    "the operator stops it, reporting": (a_round("reporting", b="accepted"), STOPS),
    "the operator stops it, aggregating": (a_round("aggregating", b="reported"), STOPS),
}


def told(commands: tuple[events.Command, ...]) -> list[str]:
    """Name the messages that commands of a round become."""
    names = [
        "RoundStatus" if isinstance(c, events.Announce) else type(c.message).__name__
        for c in commands
        if isinstance(c, events.Announce | events.Tell)
    ]
    return list(dict.fromkeys(names))


@pytest.mark.parametrize("row", table("7.2 Phases, at the coordinator"), ids=lambda row: f"{row[0]}, {row[1]}")
def test_a_row_of_phases_is_what_the_round_does(row: list[str]) -> None:
    came_from, when, goes_to, says = row
    before, event = PHASE_PLAYS.get(when) or PHASE_PLAYS[f"{when}, {came_from.strip('`')}"]
    after, commands = step(before, event, 10.0)
    assert (f"`{before.phase}`", f"`{after.phase}`", ", ".join(told(commands))) == (came_from, goes_to, says)


def test_every_play_of_a_phase_is_in_the_document() -> None:
    assert len(table("7.2 Phases, at the coordinator")) == len(PHASE_PLAYS)


MEMBER_EVENTS: tuple[events.Event, ...] = (
    events.CheckedIn(device="a"),
    events.Accepted(device="a"),
    events.Declined(device="a", reason="x"),
    events.Failed(device="a", reason="x"),
    events.Offered(offer=OFFER),
    events.Delivered(device="a", update=UPDATE.id),
    events.Rejected(device="a", update=UPDATE.id, reason="x"),
)


@pytest.mark.parametrize("row", table("7.3 Members, at the coordinator"), ids=lambda row: row[0])
def test_a_row_of_members_is_what_the_round_does(row: list[str]) -> None:
    standing = row[0].strip("`")
    cells = []
    for event in MEMBER_EVENTS:
        after, commands = step(a_round("reporting", a=standing, b="invited"), event, 1.0)
        now = after.members[0].standing
        cells.append(", ".join(([] if now == standing else [f"`{now}`"]) + told(commands)) or "-")
    assert cells == row[1:]


def test_the_members_table_has_every_standing_of_an_open_round() -> None:
    named = {row[0].strip("`") for row in table("7.3 Members, at the coordinator")}
    assert named == set(Standing) - {"joined", "missing"}


def pointer(phase: Any, number: int = 1) -> sessions.Pointed:
    cohort = ("a",) if phase == "reporting" else ()
    return sessions.Pointed(RoundStatus(epoch="e", round=number, phase=phase, cohort=cohort))


STAGE_PLAYS: dict[str, sessions.Event] = {
    "RoundStatus `selecting`": pointer("selecting"),
    "RoundStatus `selecting`, same round": pointer("selecting"),
    "RoundStatus `selecting`, next round": pointer("selecting", 2),
    "RoundStatus `reporting`, in the cohort, not reported": pointer("reporting"),
    "RoundStatus of this round, over": pointer("committed"),
    "Invite": sessions.Invited(INVITE),
    "Receipt": sessions.Receipted(1),
    "Refusal": sessions.WasRefused(1, "x"),
    "Want": sessions.Wanted(UPDATE.id),
    "the base is here": sessions.Fetched(BASE.id),
    "the update is on disk": sessions.Trained(OFFER),
    "its health forbids training": sessions.Examined("too hot"),
    "the training failed": sessions.TrainingFailed(1, "x"),
}


@pytest.mark.parametrize("row", table("7.6 Stages, at a device"), ids=lambda row: f"{row[0]}, {row[1]}")
def test_a_row_of_stages_is_what_the_session_does(row: list[str]) -> None:
    came_from, when, goes_to, says = row
    stages = {f"`{stage.name.lower()}`": stage for stage in Stage}
    has_offer = came_from in {"`offering`", "`delivered`"}
    task = None if came_from == "none" else Task(1, stages[came_from], INVITE, OFFER if has_offer else None)
    after, commands = sessions.step(Session("a", None, task), STAGE_PLAYS[when], 1.0)
    stage = f"`{after.task.stage.name.lower()}`" if after.task else "none"
    spoken = [type(c.message).__name__ for c in commands if isinstance(c, sessions.Speak)]
    assert (stage, ", ".join(spoken) or "-") == (goes_to, says)


def test_every_stage_and_every_event_of_a_device_is_in_the_document() -> None:
    rows = table("7.6 Stages, at a device")
    assert {row[2].strip("`") for row in rows} == {stage.name.lower() for stage in Stage} | {"none"}
    assert {row[1] for row in rows} == set(STAGE_PLAYS)
