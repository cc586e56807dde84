"""The one gate that an update passes before it counts."""

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.chunks import Head
from common.messages import Offer, Ref
from common.weights import Spec, Tensor, TensorSpec, pack, spec_of
from coordinator.admission import BLOCK_BYTES, refuse_body, refuse_head, refuse_offer
from coordinator.options import RoundOptions

BASE = Ref(id="0" * 64, head_bytes=612, size=2**20, chunk_bytes=65_536)
UPDATE = Ref(id="1" * 64, head_bytes=100, size=2**20, chunk_bytes=65_536)
PLAN = "3" * 64
OFFER = Offer(device="pi", round=1, generation="aa", plan=PLAN, update=UPDATE, num_examples=10)
OPTIONS = RoundOptions(max_examples=10)
# One tensor crosses the end of the block in which it begins.
TENSORS: list[Tensor] = [
    np.zeros((3, 2), np.float32),
    np.zeros(5, np.int64),
    np.zeros(BLOCK_BYTES // 4, np.float32),
    np.zeros((), np.float16),
    np.zeros(4, np.float64),
    np.zeros(3, np.uint8),
]
NAMES = ["kernel", "counter", "large", "scalar", "double", "bytes"]
SPEC = spec_of(NAMES, TENSORS)


def changed_ref(**change: Any) -> Offer:
    return msgspec.structs.replace(OFFER, update=msgspec.structs.replace(UPDATE, **change))


@pytest.mark.parametrize(
    ("offer", "parts"),
    [
        (msgspec.structs.replace(OFFER, plan="2" * 64), ["22222222", "33333333"]),
        (changed_ref(size=2**20 - 1), ["1048575 bytes", "1048576"]),
        (changed_ref(chunk_bytes=2**17), ["131072", "65536"]),
        (changed_ref(head_bytes=713), ["713 bytes", "at most 712"]),
        (changed_ref(head_bytes=712), []),
        (changed_ref(chunk_bytes=4096, head_bytes=2**23), ["8388608 bytes", "at most 8392"]),
        (changed_ref(chunk_bytes=4096, head_bytes=8392), []),
        (msgspec.structs.replace(OFFER, num_examples=11), ["11 examples", "10"]),
    ],
)
def test_an_offer_that_claims_too_much_is_refused_with_the_reason(offer: Offer, parts: list[str]) -> None:
    reason = refuse_offer(offer, PLAN, BASE, OPTIONS)
    assert (reason is not None) == bool(parts)
    for part in parts:
        assert part in (reason or "")


def test_an_update_of_more_chunks_than_the_protocol_has_is_refused() -> None:
    base = msgspec.structs.replace(BASE, size=2**30)
    offer = changed_ref(size=2**30, chunk_bytes=4096)
    assert "262145 chunks" in (refuse_offer(offer, PLAN, base, OPTIONS) or "")


def test_a_good_update_passes(tmp_path: Path) -> None:
    assert refuse_offer(OFFER, PLAN, BASE, OPTIONS) is None
    assert refuse_head(head_of(SPEC), SPEC) is None
    assert refuse_body(written(tmp_path, TENSORS), SPEC) is None


def head_of(spec: Spec | None) -> Head:
    return Head(0, 4096, b"", spec)


@pytest.mark.parametrize(
    ("spec", "part"),
    [
        (None, "nothing of its tensors"),
        (SPEC[:-1], "5 tensors"),
        ((*SPEC[:-1], TensorSpec("bytes", (4,), "uint8")), "'bytes' has shape [4]"),
        ((*SPEC[:-1], TensorSpec("bytes", (3,), "int8")), "'bytes' has dtype int8"),
        ((*SPEC[:-1], TensorSpec("other", (3,), "uint8")), "'other'"),
    ],
)
def test_tensors_other_than_the_global_models_are_refused(spec: Spec | None, part: str) -> None:
    assert part in (refuse_head(head_of(spec), SPEC) or "")


def written(folder: Path, tensors: list[Tensor]) -> Path:
    path = folder / "update"
    path.write_bytes(pack(SPEC, tensors))
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([0, 2, 3, 4]), st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 2**20))
def test_a_number_that_is_not_finite_is_found_anywhere_and_its_tensor_named(
    tmp_path: Path, which: int, value: float, place: int
) -> None:
    tensors = [tensor.copy() for tensor in TENSORS]
    tensors[which].reshape(-1)[place % tensors[which].size] = value
    reason = refuse_body(written(tmp_path, tensors), SPEC)
    assert reason == f"tensor {NAMES[which]!r} holds a number that is not finite"


def test_an_update_that_is_too_long_is_refused_with_its_norm(tmp_path: Path) -> None:
    tensors = [np.full_like(tensor, 3) for tensor in TENSORS]
    path, norm = written(tmp_path, tensors), 3 * math.sqrt(sum(tensor.size for tensor in tensors))
    assert refuse_body(path, SPEC) is None
    assert refuse_body(path, SPEC, norm * 1.01) is None
    limit = norm * 0.99
    reason = refuse_body(path, SPEC, limit)
    assert reason == f"the update's norm is {norm:.6g}; at most {limit:.6g} is admitted"


def test_whole_numbers_are_always_finite(tmp_path: Path) -> None:
    tensors = [np.full_like(t, np.iinfo(t.dtype).max) if t.dtype.kind in "iu" else t for t in TENSORS]
    assert refuse_body(written(tmp_path, tensors), SPEC) is None
