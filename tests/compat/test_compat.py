"""This version and version 2.0 read each other, as long as nothing is used that 2.0 does not know.

`v2_0` and `v2_0_documents` are copies of 2.0's structs and of how it wrote and read them; they are never edited.
Messages are drawn from the types themselves, so that every field and every end of a range is tried.
"""

from pathlib import Path
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from common import chronicle, chunks, messages, packing, topics
from common import plan as plans
from common.chronicle import MemberProgress, PastRound
from common.coordinators import Alive, Probe
from common.health import Health
from common.messages import Command, Invite, Refusal, decode
from common.plan import RoundPlan, Training
from common.topics import Address, Kind
from common.weights import TensorSpec
from coordinator import events
from coordinator.method import Method
from coordinator.options import RoundOptions
from coordinator.reception import Reception
from coordinator.round import begin, step
from coordinator.round_state import Round
from coordinator.store import Store
from tests.compat import v2_0, v2_0_documents
from tests.rounds import BASE, GENERATION, plan_of

WIRE: tuple[Any, ...] = (
    *dict.fromkeys(get_args(messages.Say | messages.Command)),
    messages.Chunk,
    messages.Signed,
    Probe,
    Alive,
)
DOCUMENTS: tuple[Any, ...] = (*get_args(messages.Story), chronicle.RoundMembers, chronicle.PastRounds)
BARE: tuple[Any, ...] = (RoundPlan, chunks.Head)


def copy_of(kind: Any) -> Any:
    """Return 2.0's struct of the same name; None where it had none."""
    return getattr(v2_0, kind.__name__, None) or getattr(v2_0_documents, kind.__name__, None)


PARTS: tuple[Any, ...] = (messages.Ref, Training, plans.ModelChoice, Health, TensorSpec, MemberProgress, PastRound)
KINDS = [kind for kind in (*WIRE, *DOCUMENTS, *BARE) if copy_of(kind)]
"""What both versions have."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=2),
    max_leaves=4,
)
LETTERS = st.characters(codec="utf-8")
AT_MOST = 3
"""Entries of a list or map that is drawn."""


def values(kind: Any) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0911, PLR0912 - one line a type
    """Draw plain values of a type; of a struct only the fields that 2.0 has."""
    match kind:
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.AnyType():
            return JSON
        case inspect.IntType():
            return st.integers(kind.ge, kind.le)
        case inspect.FloatType():
            least, most = (kind.ge if kind.gt is None else kind.gt), (kind.le if kind.lt is None else kind.lt)
            drawn = st.floats(least, most, allow_nan=False, allow_infinity=False)
            return drawn.filter(lambda value: value not in {kind.gt, kind.lt})
        case inspect.StrType(pattern=str(pattern)):
            return st.from_regex(pattern, fullmatch=True)
        case inspect.StrType():
            return st.text(LETTERS, min_size=kind.min_length or 0, max_size=min(kind.max_length or 500, 500))
        case inspect.BytesType():
            return st.binary(max_size=min(kind.max_length or 64, 64))
        case inspect.DictType():
            return st.dictionaries(values(kind.key_type), values(kind.value_type), max_size=AT_MOST)
        case inspect.VarTupleType():
            least_entries = kind.min_length or 0
            return st.lists(values(kind.item_type), min_size=least_entries, max_size=least_entries + AT_MOST)
        case inspect.LiteralType():
            return st.sampled_from(kind.values)
        case inspect.UnionType():
            return st.one_of([values(member) for member in kind.types])
        case inspect.StructType():
            return fields(kind.cls)
    raise TypeError(kind)


def fields(kind: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Draw the fields of a struct, or of its copy, that 2.0 has; those with defaults may be left out."""
    known = copy_of(kind).__struct_fields__
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    drawn = [(field.encode_name, values(field.type), field.required) for field in info.fields if field.name in known]
    return st.fixed_dictionaries(
        {name: value for name, value, is_required in drawn if is_required},
        optional={name: value for name, value, is_required in drawn if not is_required},
    )


def convert(plain: dict[str, Any], kind: Any) -> Any:
    """Make a struct of its fields."""
    tag = kind.__struct_config__.tag
    return packing.convert({"type": tag, **plain} if tag else plain, kind)


def write(message: Any) -> bytes:
    """Write a message as its version does: this one, or 2.0."""
    kind = type(message)
    is_copy = kind.__module__.startswith("tests.")
    if kind.__name__ in {"RoundMembers", "PastRounds"}:
        return msgspec.json.encode(message)
    if kind.__name__ == "Head":
        return bytes(msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,))))
    if kind.__name__ in {document.__name__ for document in DOCUMENTS}:
        return v2_0_documents.encode_story(message) if is_copy else messages.encode_story(message)
    return v2_0.pack(message) if is_copy else packing.pack(message)


def read(payload: bytes, kind: Any) -> Any:
    """Read a message as the version of `kind` does."""
    is_copy = kind.__module__.startswith("tests.")
    if kind.__name__ in {document.__name__ for document in DOCUMENTS}:
        return (v2_0_documents if is_copy else messages).decode_story(payload, kind)
    return (v2_0.decode if is_copy else decode)(payload, kind)


def fields_of(value: Any) -> Any:
    """Return all that a message says of what 2.0 has, with defaults."""
    if isinstance(value, msgspec.Struct):
        return {name: fields_of(getattr(value, name)) for name in copy_of(type(value)).__struct_fields__}
    return [fields_of(entry) for entry in value] if isinstance(value, tuple) else value


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=30)
def test_what_this_version_sends_without_newer_options_is_read_by_2_0(kind: Any, data: st.DataObject) -> None:
    message = convert(data.draw(fields(kind)), kind)
    assert fields_of(read(write(message), copy_of(kind))) == fields_of(message)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=30)
def test_what_2_0_sends_is_read_by_this_version(kind: Any, data: st.DataObject) -> None:
    message = convert(data.draw(fields(copy_of(kind))), copy_of(kind))
    assert fields_of(read(write(message), kind)) == fields_of(message)


def shape(part: Any) -> Any:
    """Return all of a field's type that can be compared: a struct is its name."""
    if isinstance(part, inspect.StructType):
        return part.cls.__name__
    if isinstance(part, msgspec.Struct):
        return (type(part).__name__, *(shape(getattr(part, name)) for name in part.__struct_fields__))
    return [shape(entry) for entry in part] if isinstance(part, tuple) else part


def shapes(kind: Any) -> dict[str, Any]:
    """Return the types and defaults of a struct's fields."""
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    defaults = {f.name: f.default_factory() for f in info.fields if f.default_factory is not msgspec.NODEFAULT}
    defaults |= {f.name: f.default for f in info.fields if f.default is not msgspec.NODEFAULT}
    return {f.name: (shape(f.type), f.required, msgspec.to_builtins(defaults.get(f.name))) for f in info.fields}


@pytest.mark.parametrize("kind", [*KINDS, *PARTS], ids=lambda kind: kind.__name__)
def test_a_field_of_2_0_still_has_its_type_its_range_and_its_default(kind: Any) -> None:
    here, there = shapes(kind), shapes(copy_of(kind))
    assert here.items() >= there.items()
    assert not any(is_required for name, (_, is_required, _) in here.items() if name not in there)


def test_every_message_of_2_0_is_still_there() -> None:
    here = {kind.__name__ for kind in WIRE}
    assert here >= {kind.__name__ for kind in get_args(v2_0.Say | v2_0.Command)} | {"Chunk", "Signed", "Probe", "Alive"}
    assert {kind.__name__ for kind in DOCUMENTS} >= {kind.__name__ for kind in get_args(v2_0_documents.Story)}
    assert {row.kind.value: row.pattern for row in topics.TABLE}.items() >= v2_0.TOPICS.items()


def test_an_option_that_2_0_lacks_has_its_ability() -> None:
    options = {*Training.__struct_fields__, *RoundPlan.__struct_fields__}
    known = {*v2_0.Training.__struct_fields__, *v2_0.RoundPlan.__struct_fields__}
    assert set(plans.NEWER_OPTIONS) == options - known
    assert plans.BASE_MODELS == v2_0.BASE_MODELS


# ---- an option that is newer -----------------------------------------------------------------


class LaterTraining(Training, frozen=True):
    """A training with an option that 2.0 has not."""

    sharpness: float = 0.0


class LaterPlan(RoundPlan, frozen=True):
    """A plan with that training."""

    training: LaterTraining = LaterTraining()


ABILITY = "training:sharpness"


@pytest.fixture
def _later_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.plan.NEWER_OPTIONS", {"sharpness": ABILITY})


def later_plan(sharpness: float) -> RoundPlan:
    plain = packing.plain(plan_of())
    return packing.convert({**plain, "training": {"sharpness": sharpness}}, LaterPlan)  # type: ignore[no-any-return]


class Fleet:
    """A coordinator's reception, round and journal; devices speak in the bytes of 2.0."""

    def __init__(self, folder: Path, plan: RoundPlan) -> None:
        self.store = Store(folder / "journal.sqlite", create=True)
        self.reception = Reception("demo", self.store)
        self.round: Round = begin(plan, RoundOptions(goal=2, minimum=1, selection_s=10), Method(), 0.0)[0]
        self.told: dict[str, list[Command]] = {}

    def say(self, device: str, message: Any) -> None:
        """Let a device say something, and take what it means to the round."""
        address = Address(Kind.DEV_SAY, "demo", device=device)
        arrival = self.reception.admit(address, v2_0.encode(message), self.round.plan)
        if arrival.event is not None:
            self.take(arrival.event)

    def take(self, event: events.Event, now: float = 1.0) -> None:
        """Take an event, keep the round and what devices are told."""
        self.round, commands = step(self.round, event, now)
        self.store.save(self.round, 1)
        for command in commands:
            if isinstance(command, events.Tell):
                self.told.setdefault(command.message.device, []).append(command.message)

    def join(self, device: str, *abilities: str) -> None:
        """Let a device of 2.0, or one that names an ability, check in."""
        self.say(device, v2_0.Hello(device=device, nonce="1", abilities=abilities))
        self.say(device, v2_0.CheckIn(device=device, round=self.round.number, generation=GENERATION))


@pytest.mark.usefixtures("_later_option")
def test_a_later_option_that_is_used_goes_to_devices_that_have_its_ability_and_to_no_other(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, later_plan(0.5))
    fleet.join("old")
    fleet.join("new", ABILITY)
    fleet.take(events.Tick(), 11.0)
    assert [type(message) for message in fleet.told["new"]] == [Invite]
    (refusal,) = fleet.told["old"]
    assert isinstance(refusal, Refusal)
    assert isinstance(v2_0.decode(messages.encode(refusal), v2_0.Command), v2_0.Refusal)
    rows = {row.device: row for row in fleet.store.ledger(fleet.round.number)}
    assert (rows["old"].standing, rows["new"].standing) == ("unable", "invited")
    assert ABILITY in rows["old"].reason
    (invite,) = fleet.told["new"]
    assert isinstance(invite, Invite)
    with pytest.raises(v2_0.PeerError, match="sharpness"):
        v2_0.read(invite.plan)


@pytest.mark.usefixtures("_later_option")
def test_a_later_option_at_its_default_is_not_sent_and_keeps_nobody_out(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, later_plan(0.0))
    fleet.join("old")
    fleet.join("new", ABILITY)
    assert {row.device: row.standing for row in fleet.store.ledger(fleet.round.number)} == {
        "old": "invited",
        "new": "invited",
    }
    (invite,) = fleet.told["old"]
    read_there = v2_0.decode(messages.encode(invite), v2_0.Command)
    assert v2_0.read(read_there.plan).training == v2_0.Training()


def test_an_offer_of_2_0_is_taken(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, plan_of())
    fleet.join("old")
    fleet.join("older")
    (invite,) = fleet.told["old"]
    assert isinstance(invite, Invite)
    update = v2_0.Ref(id="1" * 64, head_bytes=BASE.head_bytes, size=BASE.size, chunk_bytes=BASE.chunk_bytes)
    part: dict[str, Any] = {"device": "old", "round": fleet.round.number, "generation": GENERATION}
    fleet.say("old", v2_0.Accept(**part))
    fleet.say("old", v2_0.Offer(**part, plan=plans.digest(invite.plan), update=update, num_examples=3))
    assert {row.device: row.standing for row in fleet.store.ledger(fleet.round.number)} == {
        "old": "delivering",
        "older": "invited",
    }
