"""Every strategy against a reference over whole arrays, written from the papers' formulas and nothing of ours."""

import itertools
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from common.weights import Spec, Tensor, TensorSpec, pack, unpack
from coordinator.aggregation import Contribution, aggregate
from coordinator.blocks import BLOCK_BYTES
from coordinator.strategies.catalogue import AnyStrategy
from coordinator.strategies.strategy import Strategy

Array = NDArray[np.float64]
SPEC = (
    TensorSpec("kernel", (40, 30), "float64"),
    TensorSpec("norm/moving_variance", (30,), "float64"),
    TensorSpec("head", (30, 1), "float32"),
    # Larger than a block, so that a block begins within it.
    TensorSpec("large", (BLOCK_BYTES // 8 + 100,), "float64"),
    TensorSpec("counter", (2,), "int64"),
)
STATISTIC, COUNTER = 1, 4
EXAMPLES = (7, 30, 1, 12, 5, 9, 20)
ROUNDS = 3


def chosen(name: str, **options: Any) -> Strategy:
    strategy: Strategy = msgspec.convert({"name": name, **options}, AnyStrategy)
    return strategy


def drawn(seed: int) -> list[Tensor]:
    """Updates: the whole-number tensor is zero, as devices send it."""
    rng = np.random.default_rng(seed)
    tensors: list[Tensor] = [(rng.standard_normal(t.shape) / 10).astype(t.dtype) for t in SPEC]
    tensors[COUNTER] = np.zeros(2, np.int64)
    return tensors


class Play:
    """Rounds of one strategy over files, whose moments go from one to the next."""

    def __init__(self, folder: Path, strategy: Strategy, spec: Spec = SPEC) -> None:
        self.folder, self.strategy, self.spec = folder, strategy, spec
        self.moments: Path | None = None
        self.weights: dict[str, float] = {}

    def round(self, base: list[Tensor], updates: Sequence[list[Tensor]], examples: Sequence[int]) -> list[Tensor]:
        (self.folder / "base").write_bytes(pack(self.spec, base))
        contributions = []
        for place, (update, count) in enumerate(zip(updates, examples, strict=True)):
            path = self.folder / f"pi-{place}"
            path.write_bytes(pack(self.spec, update))
            contributions.append(Contribution(path.name, path, count))
        done = aggregate(self.folder / "base", contributions[::-1], self.spec, self.strategy, self.moments)
        blocks = list(done.blocks)
        self.weights = done.weights
        if self.strategy.fresh_moments:
            self.moments = self.folder / "moments"
            self.moments.write_bytes(b"".join(block.moments for block in blocks))
        return [t.copy() for t in unpack(self.spec, b"".join(block.model for block in blocks))]


# ---- the references: `w` weights, `u` updates [n, ...], `n` numbers of examples, `state` of the tensor ---------------

State = dict[str, Array]
Reference = Callable[[Array, Array, Array, State], Array]


def by_examples(u: Array, n: Array) -> Array:
    return np.asarray(np.average(u, axis=0, weights=n))


def ref_fedavg(w: Array, u: Array, n: Array, _: State) -> Array:
    """McMahan et al. 2017: the average of the local models, not of updates."""
    return by_examples(w + u, n)


def ref_mean(w: Array, u: Array, _n: Array, _s: State) -> Array:
    return np.asarray(w + u.mean(axis=0))


def ref_inverse_index(w: Array, u: Array, _n: Array, _s: State) -> Array:
    shares = np.array([0.1 / (i + 0.1) for i in range(len(u))])
    return np.asarray(np.tensordot(shares / shares.sum(), w + u, 1))


def ref_fedavgm(w: Array, u: Array, n: Array, s: State) -> Array:
    """Hsu et al. 2019, with a server learning rate: v = beta v + delta, w = w - lr v, where delta is -update."""
    s["v"] = 0.8 * s.get("v", np.zeros_like(w)) - by_examples(u, n)
    return w - 0.5 * s["v"]


def ref_adaptive(second: Callable[[Array, Array], Array], beta1: float) -> Reference:
    """Reddi et al. 2021, algorithm 2, with eta 0.02 and tau 0.01; v begins at tau squared."""

    def step(w: Array, u: Array, n: Array, s: State) -> Array:
        delta = by_examples(u, n)
        s["m"] = beta1 * s.get("m", np.zeros_like(w)) + (1 - beta1) * delta
        s["v"] = second(s.get("v", np.full_like(w, 0.01**2)), delta**2)
        return w + 0.02 * s["m"] / (np.sqrt(s["v"]) + 0.01)

    return step


def ref_median(w: Array, u: Array, _n: Array, _s: State) -> Array:
    return np.asarray(np.median(w + u, axis=0))


def ref_trimmed(w: Array, u: Array, _n: Array, _s: State) -> Array:
    """Of 7 devices, 0.2 at either end is one."""
    return np.asarray(w + np.sort(u, axis=0)[1:-1].mean(axis=0))


ADAPTIVE = {"server_learning_rate": 0.02, "tau": 0.01, "beta1": 0.7}
CASES: dict[str, tuple[dict[str, Any], Reference]] = {
    "fedavg": ({}, ref_fedavg),
    "mean": ({}, ref_mean),
    "inverse_index": ({}, ref_inverse_index),
    "fedavgm": ({"server_learning_rate": 0.5, "momentum": 0.8}, ref_fedavgm),
    "fedadam": ({**ADAPTIVE, "beta2": 0.95}, ref_adaptive(lambda v, d2: 0.95 * v + 0.05 * d2, 0.7)),
    "fedyogi": ({**ADAPTIVE, "beta2": 0.95}, ref_adaptive(lambda v, d2: v - 0.05 * d2 * np.sign(v - d2), 0.7)),
    "fedadagrad": ({**ADAPTIVE, "beta1": 0.0}, ref_adaptive(lambda v, d2: v + d2, 0.0)),
    "median": ({}, ref_median),
    "trimmed_mean": ({"trim": 0.2}, ref_trimmed),
}


@pytest.mark.parametrize("name", CASES)
def test_a_strategy_agrees_with_its_papers_formula_over_several_rounds(tmp_path: Path, name: str) -> None:
    options, reference = CASES[name]
    play = Play(tmp_path, chosen(name, **options))
    base: list[Tensor] = [np.abs(tensor) + 1 for tensor in drawn(99)]
    base[COUNTER] = np.array([2**60 + 1, -5])
    states: list[State] = [{} for _ in SPEC]
    for number in range(ROUNDS):
        updates = [drawn(100 * number + place) for place in range(len(EXAMPLES))]
        result = play.round(base, updates, EXAMPLES)
        for place, tensor in enumerate(SPEC):
            u = np.stack([update[place].astype(np.float64) for update in updates])
            # What is measured rather than trained is averaged, whatever the server optimiser.
            rule = ref_fedavg if place == STATISTIC and play.strategy.fresh_moments else reference
            expected = rule(base[place].astype(np.float64), u, np.array(EXAMPLES, np.float64), states[place])
            if place == COUNTER:
                np.testing.assert_array_equal(result[place], base[place])
            else:
                np.testing.assert_allclose(result[place], expected, rtol=1e-12 if tensor.dtype == "float64" else 1e-6)
        base = result


def test_an_even_number_of_devices_has_the_mean_of_the_two_in_the_middle(tmp_path: Path) -> None:
    updates = [drawn(place) for place in range(4)]
    result = Play(tmp_path, chosen("median")).round(drawn(9), updates, [1, 1, 1, 1])
    expected = drawn(9)[0] + np.median(np.stack([u[0] for u in updates]), axis=0)
    np.testing.assert_allclose(result[0], expected, rtol=1e-12)


# ---- Krum -----------------------------------------------------------------------------------


def krum_scores(updates: Sequence[list[Tensor]], byzantine: int) -> list[float]:
    """Blanchard et al. 2017: the sum of the squared distances to the n - f - 2 closest other vectors."""
    flat = [np.concatenate([t.ravel().astype(np.float64) for t in update]) for update in updates]
    scores = []
    for i, one in enumerate(flat):
        apart = sorted(float(np.linalg.norm(one - other)) ** 2 for j, other in enumerate(flat) if j != i)
        scores.append(sum(apart[: len(flat) - byzantine - 2]))
    return scores


def crowd(count: int, liars: Sequence[int]) -> list[list[Tensor]]:
    """Devices that roughly agree, and liars who agree with each other on something far away."""
    common, lie = drawn(0), drawn(1)
    noise = [drawn(50 + place) for place in range(count)]
    updates = [[(c + 0.3 * d).astype(c.dtype) for c, d in zip(common, one, strict=True)] for one in noise]
    for place in liars:
        updates[place] = [(20 * value).astype(value.dtype) for value in lie]
    return updates


@pytest.mark.parametrize(("byzantine", "liars"), [(0, ()), (1, (0,)), (2, (1, 4)), (2, (5, 6))])
def test_krum_takes_the_update_with_the_best_score(tmp_path: Path, byzantine: int, liars: tuple[int, ...]) -> None:
    updates = crowd(7, liars)
    play = Play(tmp_path, chosen("krum", byzantine=byzantine))
    result = play.round(drawn(9), updates, EXAMPLES)
    best = int(np.argmin(krum_scores(updates, byzantine)))
    assert best not in liars
    assert [device for device, weight in play.weights.items() if weight] == [f"pi-{best}"]
    for base, after, update in zip(drawn(9), result, updates[best], strict=True):
        np.testing.assert_allclose(after, base + update, rtol=1e-6)


@pytest.mark.parametrize(("keep", "kept"), [(0, 5), (3, 3), (1, 1)])
def test_multi_krum_averages_the_updates_with_the_best_scores(tmp_path: Path, keep: int, kept: int) -> None:
    updates = crowd(7, (1, 4))
    result = Play(tmp_path, chosen("multi_krum", byzantine=2, keep=keep)).round(drawn(9), updates, EXAMPLES)
    best = np.argsort(krum_scores(updates, 2))[:kept]
    expected = drawn(9)[0] + np.mean([updates[place][0] for place in best], axis=0)
    np.testing.assert_allclose(result[0], expected, rtol=1e-12)


def test_of_equal_scores_krum_takes_the_first_device(tmp_path: Path) -> None:
    play = Play(tmp_path, chosen("krum", byzantine=1))
    play.round(drawn(9), [drawn(5)] * 5, [1] * 5)
    assert list(play.weights.values()) == [1.0, 0.0, 0.0, 0.0, 0.0]


# ---- what all of them promise ---------------------------------------------------------------

NAMES = [kind.__struct_config__.tag for kind in AnyStrategy.__args__]
TINY = (TensorSpec("w", (5,), "float32"), TensorSpec("moving_mean", (2,), "float16"))


def tiny(seed: int) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(t.shape).astype(t.dtype) for t in TINY]


@pytest.mark.parametrize("name", NAMES)
def test_any_order_of_arrival_gives_the_same_bytes(tmp_path: Path, name: str) -> None:
    (tmp_path / "base").write_bytes(pack(TINY, tiny(9)))
    contributions = []
    for place in range(5):
        path = tmp_path / f"pi-{place}"
        path.write_bytes(pack(TINY, tiny(place)))
        contributions.append(Contribution(path.name, path, place + 1))
    strategy = chosen(name)
    found = set()
    for order in itertools.permutations(contributions):
        blocks = tuple(aggregate(tmp_path / "base", order, TINY, strategy).blocks)
        found.add(blocks)
    assert len(found) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_robust_strategy_outlives_one_liar_and_the_means_do_not(tmp_path: Path, name: str) -> None:
    spec = (TensorSpec("w", (3,), "float32"),)
    updates: list[list[Tensor]] = [[np.full(3, value, np.float32)] for value in (0.9, 1.0, 1.1, 1.2, -1e9)]
    zeros: list[Tensor] = [np.zeros(3, np.float32)]
    moved = float(Play(tmp_path, chosen(name), spec).round(zeros, updates, [1] * 5)[0][0])
    is_robust = name in {"median", "trimmed_mean", "krum"}
    if name == "multi_krum":  # keeps n - byzantine: all but the liar
        assert moved == pytest.approx(1.05)
    elif is_robust:
        assert 0.9 <= moved <= 1.2
    else:
        assert moved < 0


@pytest.mark.parametrize(
    ("name", "options", "least"),
    [
        ("fedavg", {}, 1),
        ("median", {}, 1),
        ("trimmed_mean", {"trim": 0.1}, 10),
        ("trimmed_mean", {"trim": 0.34}, 3),
        ("krum", {"byzantine": 2}, 7),
        ("multi_krum", {"byzantine": 1, "keep": 9}, 9),
    ],
)
def test_a_strategy_says_how_many_updates_it_needs(name: str, options: dict[str, Any], least: int) -> None:
    assert chosen(name, **options).least_updates == least


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "krum"])
@pytest.mark.slow
def test_memory_does_not_grow_with_the_fleet(tmp_path: Path, name: str) -> None:
    size, devices = 800_000, 100
    spec = (TensorSpec("w", (size // 4,), "float32"),)
    path = tmp_path / "zeros"
    path.write_bytes(bytes(size))
    contributions = [Contribution(f"pi-{place}", path, 1) for place in range(devices)]
    tracemalloc.start()
    try:
        for _ in aggregate(path, contributions, spec, chosen(name)).blocks:
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size * devices / 2
