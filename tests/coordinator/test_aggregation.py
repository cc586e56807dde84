"""The mean of the updates."""

import itertools
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from common.errors import DataError
from common.weights import Spec, Tensor, TensorSpec, pack, unpack
from coordinator.aggregation import Contribution, aggregate
from coordinator.blocks import BLOCK_BYTES, MANY_UPDATES
from coordinator.strategies.fedavg import FedAvg

SPEC = (
    TensorSpec("kernel", (50, 40), "float32"),
    TensorSpec("half", (7,), "float16"),
    TensorSpec("double", (11,), "float64"),
    TensorSpec("counter", (3,), "int64"),
    TensorSpec("bytes", (5,), "uint8"),
    # Larger than a block, so that blocks begin within tensors.
    TensorSpec("large", (BLOCK_BYTES // 4 + 100,), "float32"),
)
FLOATS = [place for place, tensor in enumerate(SPEC) if tensor.dtype.startswith("float")]


def drawn(seed: int, scale: float = 1.0) -> list[Tensor]:
    """Tensors of SPEC; whole-number ones are zero, as devices send them."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return [
        (rng.standard_normal(t.shape) * scale).astype(t.dtype)
        if t.dtype.startswith("float")
        else np.zeros(t.shape, t.dtype)
        for t in SPEC
    ]


def write(folder: Path, name: str, tensors: list[Tensor], spec: Spec = SPEC) -> Path:
    path = folder / name
    path.write_bytes(pack(spec, tensors))
    return path


def average(base: Path, contributions: list[Contribution], spec: Spec = SPEC) -> bytes:
    return b"".join(block.model for block in aggregate(base, contributions, spec, FedAvg()).blocks)


weights = st.one_of(st.integers(1, 1000), st.just(1), st.just(2**53))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.tuples(weights, st.sampled_from([1.0, 1e-6, 100.0])), min_size=1, max_size=5), st.integers(0, 99))
@example([(1, 1.0), (2**53, 1.0), (1, 1.0)], 0)
def test_the_mean_is_that_of_numpy_in_float64(tmp_path: Path, parts: list[tuple[int, float]], seed: int) -> None:
    base = drawn(seed)
    updates = [drawn(seed + 1 + place, scale) for place, (_, scale) in enumerate(parts)]
    contributions = [
        Contribution(f"pi-{place}", write(tmp_path, f"pi-{place}", updates[place]), weight)
        for place, (weight, _) in enumerate(parts)
    ]
    result = unpack(SPEC, average(write(tmp_path, "base", base), contributions))
    for place in range(len(SPEC)):
        stack = np.stack([update[place].astype(np.float64) for update in updates])
        mean = np.average(stack, axis=0, weights=[weight for weight, _ in parts])
        expected = (base[place].astype(np.float64) + mean).astype(SPEC[place].dtype)
        if place in FLOATS:
            # The order of float64 operations may move a rounding edge, and what is added may cancel to a small sum.
            rounding = 8 * 2.0**-53 * max(np.abs(base[place]).max(), np.abs(stack).max())
            assert (np.abs(result[place] - expected) <= np.spacing(np.abs(expected)) + rounding).all()
        else:
            np.testing.assert_array_equal(result[place], base[place])


def test_every_order_of_arrival_gives_the_same_bytes(tmp_path: Path) -> None:
    base = write(tmp_path, "base", drawn(0))
    contributions = [
        Contribution(device, write(tmp_path, device, drawn(seed)), weight)
        for seed, (device, weight) in enumerate([("a", 3), ("b", 1), ("c", 1000), ("d", 7)], 1)
    ]
    results = {average(base, list(order)) for order in itertools.permutations(contributions)}
    assert len(results) == 1


@pytest.mark.parametrize("count", [2, MANY_UPDATES])
def test_few_and_many_updates_are_summed_in_the_order_of_the_devices(tmp_path: Path, count: int) -> None:
    # Of float64, whose last bit tells the order; five blocks.
    spec = (TensorSpec("w", (BLOCK_BYTES // 2 + 100,), "float64"),)
    base, *updates = (np.random.default_rng(seed).standard_normal(spec[0].shape) for seed in range(count + 1))
    total = np.zeros_like(base)
    contributions = []
    for place, update in enumerate(updates):
        device, examples = f"pi-{place:02d}", 7 * place + 1
        total = total + update * examples
        contributions.append(Contribution(device, write(tmp_path, device, [update], spec), examples))
    expected = base + total / sum(c.num_examples for c in contributions)
    assert average(write(tmp_path, "base", [base], spec), contributions[::-1], spec) == expected.tobytes()


def test_one_device_moves_the_base_by_its_update(tmp_path: Path) -> None:
    base, update = drawn(0), drawn(1)
    for weight in (1, 12_345, 2**53):
        only = [Contribution("pi", write(tmp_path, "pi", update), weight)]
        result = unpack(SPEC, average(write(tmp_path, "base", base), only))
        np.testing.assert_allclose(result[0], base[0] + update[0], rtol=1e-6, atol=1e-7)


def test_a_heavy_device_outweighs_a_light_one(tmp_path: Path) -> None:
    base, heavy, light = drawn(0), drawn(1), drawn(2)
    contributions = [
        Contribution("heavy", write(tmp_path, "heavy", heavy), 10**9),
        Contribution("light", write(tmp_path, "light", light), 1),
    ]
    result = unpack(SPEC, average(write(tmp_path, "base", base), contributions))
    np.testing.assert_allclose(result[0], base[0] + heavy[0], atol=1e-6)


def test_float32_sums_depend_on_the_order_but_this_mean_does_not(tmp_path: Path) -> None:
    spec = (TensorSpec("one", (1,), "float32"),)
    values = [1e8, 1.0, -1e8, 1.0]
    contributions = [
        Contribution(str(place), write(tmp_path, str(place), [np.array([value], np.float32)], spec), 1)
        for place, value in enumerate(values)
    ]
    base = write(tmp_path, "base", [np.zeros(1, np.float32)], spec)
    assert np.frombuffer(average(base, contributions, spec), np.float32)[0] == 0.5


WHOLE = (
    TensorSpec("signed", (3,), "int64"),
    TensorSpec("unsigned", (3,), "uint64"),
    TensorSpec("byte", (2,), "uint8"),
    TensorSpec("small", (1,), "int16"),
)


def test_whole_numbers_that_no_float_can_hold_stay_as_they_are(tmp_path: Path) -> None:
    base: list[Tensor] = [
        np.array([2**62 + 1, -(2**62) - 1, 0], np.int64),
        np.array([2**64 - 1, 2**53 + 1, 0], np.uint64),
        np.array([255, 0], np.uint8),
        np.array([-5], np.int16),
    ]
    zero = [np.zeros_like(tensor) for tensor in base]
    only = [Contribution("pi", write(tmp_path, "pi", zero, WHOLE), 3)]
    path = write(tmp_path, "base", base, WHOLE)
    assert average(path, only, WHOLE) == path.read_bytes()


def test_whole_numbers_move_to_the_nearest(tmp_path: Path) -> None:
    base: list[Tensor] = [
        np.array([10, 10, 10], np.int64),
        np.array([10, 10, 10], np.uint64),
        np.array([10, 10], np.uint8),
        np.array([10], np.int16),
    ]
    up = [np.full_like(tensor, 4) for tensor in base]
    zero = [np.zeros_like(tensor) for tensor in base]
    contributions = [
        Contribution("a", write(tmp_path, "a", up, WHOLE), 2),
        Contribution("b", write(tmp_path, "b", zero, WHOLE), 1),
    ]
    result = unpack(WHOLE, average(write(tmp_path, "base", base, WHOLE), contributions, WHOLE))
    assert [tensor.tolist() for tensor in result] == [[13] * 3, [13] * 3, [13] * 2, [13]]


def test_a_mean_out_of_range_is_no_model(tmp_path: Path) -> None:
    spec = (TensorSpec("half", (2,), "float16"),)
    base = write(tmp_path, "base", [np.array([60_000, 0], np.float16)], spec)
    only = [Contribution("pi", write(tmp_path, "pi", [np.array([60_000, 0], np.float16)], spec), 1)]
    with pytest.raises(DataError, match="float16"):
        average(base, only, spec)


def test_a_file_that_is_too_short_or_gone_is_named(tmp_path: Path) -> None:
    base, update = write(tmp_path, "base", drawn(0)), write(tmp_path, "pi", drawn(1))
    os.truncate(update, 1000)
    with pytest.raises(DataError, match="pi: the file is too short"):
        average(base, [Contribution("pi", update, 1)])
    with pytest.raises(DataError, match="gone: cannot read: No such file"):
        average(base, [Contribution("pi", tmp_path / "gone", 1)])


@pytest.mark.parametrize("count", [2, 2 * MANY_UPDATES])
def test_memory_does_not_grow_with_the_model_or_the_fleet(tmp_path: Path, count: int) -> None:
    size = 20 * 2**20
    spec = (TensorSpec("all", (size // 4,), "float32"),)
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.truncate(size)
    contributions = [Contribution(f"pi-{place}", path, 1) for place in range(count)]
    tracemalloc.start()
    try:
        for _ in aggregate(path, contributions, spec, FedAvg()).blocks:
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * 2**20
