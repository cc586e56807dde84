"""Weights as bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from common.errors import PeerError
from common.weights import (
    DTYPES,
    MAX_TENSORS,
    Spec,
    Tensor,
    TensorSpec,
    difference,
    nbytes,
    pack,
    segments,
    spec_of,
    unpack,
    update_of,
    validate,
)

tensors = st.lists(
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    ),
    max_size=6,
)


def named(values: list[Tensor]) -> Spec:
    return spec_of([f"tensor-{place}" for place in range(len(values))], values)


@given(tensors)
def test_what_is_packed_is_unpacked(values: list[Tensor]) -> None:
    spec = named(values)
    data = pack(spec, values)
    assert len(data) == nbytes(spec)
    for before, after in zip(values, unpack(spec, data), strict=True):
        assert after.dtype == before.dtype.newbyteorder("<")
        assert after.tobytes() == before.tobytes()
        assert after.shape == before.shape


@given(tensors, st.integers(1, 200))
def test_segments_cover_every_byte_once_in_one_dtype_each(values: list[Tensor], limit: int) -> None:
    spec = named(values)
    owner = [tensor.dtype for tensor in spec for _ in range(tensor.nbytes)]
    offset = 0
    for segment in segments(spec, limit):
        assert segment.offset == offset
        assert 0 < segment.nbytes <= max(limit, segment.dtype.itemsize)
        assert segment.nbytes % segment.dtype.itemsize == 0
        assert set(owner[offset : offset + segment.nbytes]) == {segment.dtype.name}
        offset += segment.nbytes
    assert offset == nbytes(spec)


def test_neighbours_of_one_dtype_share_a_segment() -> None:
    spec = named([np.zeros(3, np.float32), np.zeros(5, np.float32), np.zeros(2, np.int8), np.zeros(1, np.float32)])
    assert [(s.offset, s.nbytes) for s in segments(spec, 1000)] == [(0, 32), (32, 2), (34, 4)]


def test_memory_order_and_byte_order_do_not_matter() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    spec = named([values])
    assert pack(spec, [np.asfortranarray(values)]) == pack(spec, [values.astype(">f4")]) == values.tobytes()


def test_views_are_read_only() -> None:
    spec = named([np.zeros(3, np.float32)])
    with pytest.raises(ValueError, match="read-only"):
        unpack(spec, bytes(12))[0][0] = 1


@pytest.mark.parametrize("length", [0, 11, 13])
def test_bytes_of_the_wrong_length_are_refused(length: int) -> None:
    with pytest.raises(PeerError, match="12"):
        unpack(named([np.zeros(3, np.float32)]), bytes(length))


SPEC = (TensorSpec("kernel", (2, 3), "float32"), TensorSpec("bias", (3,), "float32"))


@pytest.mark.parametrize(
    ("found", "named_in_it"),
    [
        (SPEC[:1], "1 tensors"),
        ((SPEC[1], SPEC[0]), "'bias'"),
        ((SPEC[0], TensorSpec("bias", (4,), "float32")), "'bias' has shape [4]"),
        ((SPEC[0], TensorSpec("bias", (3,), "float64")), "'bias' has dtype float64"),
        ((TensorSpec("kernel", (3, 2), "float32"), SPEC[1]), "'kernel' has shape [3, 2]"),
    ],
)
def test_a_difference_names_the_tensor(found: Spec, named_in_it: str) -> None:
    assert difference(SPEC, SPEC) is None
    reason = difference(SPEC, found)
    assert reason is not None
    assert named_in_it in reason


def test_weights_that_do_not_fit_their_spec_are_not_packed() -> None:
    with pytest.raises(ValueError, match="'bias'"):
        pack(SPEC, [np.zeros((2, 3), np.float32), np.zeros(4, np.float32)])
    with pytest.raises(ValueError, match="shorter"):
        pack(SPEC, [np.zeros((2, 3), np.float32)])


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ((TensorSpec("a", (1,), "object"),), "dtype"),
        ((TensorSpec("a", (1,), "<U5"),), "dtype"),
        ((TensorSpec("a", (1,), "nonsense"),), "dtype"),
        ((SPEC[0], SPEC[0]), "twice"),
        (tuple(TensorSpec(str(i), (), "int8") for i in range(MAX_TENSORS + 1)), "limit"),
    ],
)
def test_a_spec_that_no_mean_can_be_taken_of_is_refused(spec: Spec, reason: str) -> None:
    validate(SPEC)
    with pytest.raises(PeerError, match=reason):
        validate(spec)


def test_an_update_keeps_the_dtype_and_leaves_whole_numbers_alone() -> None:
    before, after = np.array([[1, 2]], np.float32), np.array([[1.5, 1]], np.float32)
    change = update_of(before, after)
    assert change.dtype == np.float32
    assert change.tolist() == [[0.5, -1.0]]
    assert update_of(np.array([3]), np.array([5])).tolist() == [0]
    assert update_of(np.array(1.0), np.array(4.0)).shape == ()
