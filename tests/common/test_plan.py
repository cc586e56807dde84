"""Plans: any bytes give one or PeerError, and what is left at its default does not travel."""

import contextlib
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PeerError
from common.plan import ModelChoice, RoundPlan, Training, abilities, needs, read, write
from tests.common.test_messages import msgpack_values, plans
from tests.rounds import plan_of

PLAN = {
    "round": 1,
    "generation": "aa",
    "base": {"id": "1" * 64, "head_bytes": 100, "size": 8, "chunk_bytes": 65_536},
    "model": {"name": "numpy", "options": {}},
}


@given(msgpack_values)
def test_an_invitation_that_was_taken_can_be_handed_to_the_training_process(value: Any) -> None:
    model = {"name": "numpy", "options": {"option": value}}
    try:
        plan = read(msgpack.packb({**PLAN, "model": model}))
    except PeerError:
        return
    msgspec.json.encode(plan)


@given(plans)
def test_a_plan_comes_back_as_it_was_written_without_what_it_leaves_at_its_default(plan: RoundPlan) -> None:
    packed = write(plan)
    assert read(packed) == plan
    assert write(read(packed)) == packed
    plain = msgpack.unpackb(packed)
    assert ("training" in plain) == (plan.training != Training())
    assert ("labels" in plain) == (plan.labels != ("no", "yes"))


changed_plans = st.builds(
    lambda field, value: msgpack.packb({**PLAN, field: value}),
    st.sampled_from([*PLAN, "training", "surplus"]),
    msgpack_values,
)


@given(st.binary(max_size=200) | changed_plans)
def test_any_bytes_are_a_plan_or_refused(packed: bytes) -> None:
    with contextlib.suppress(PeerError):
        read(packed)


@pytest.mark.parametrize("depth", [100, 1000, 1100, 100_000])
def test_a_plan_whose_options_are_nested_deeply_is_read_or_refused(depth: int) -> None:
    options = b"\x82\xa4name\xa1x\xa7options\x81\xa1a" + b"\x91" * depth + b"\xc0"
    head = msgpack.packb(PLAN).rpartition(b"\xa5model")[0] + b"\xa5model"
    with contextlib.suppress(PeerError):
        read(head + options)


def test_a_model_of_ones_own_needs_a_device_that_knows_it() -> None:
    assert needs(plan_of()) == frozenset()
    assert needs(plan_of(model=ModelChoice(name="tiny"))) == {"model:tiny"}
    assert {"model:tiny"} <= set(abilities(["tiny"]))


def test_an_option_that_is_newer_than_the_version_needs_its_ability_where_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("common.plan.NEWER_OPTIONS", {"clip_norm": "clipping"})
    assert needs(plan_of()) == frozenset()
    assert needs(plan_of(training=Training(clip_norm=1.0))) == {"clipping"}
    assert abilities([]) == ("clipping",)
