"""Which tensors stay on the device."""

import numpy as np

from common.learning.personal import bare, overlay, places
from common.plan import ModelChoice, Training
from common.weights import TensorSpec

NAMES = (
    "000/sequential/conv1/kernel",
    "001/sequential/extra_conv/kernel",
    "002/bn/gamma",
    "003/bn/moving_mean",
    "004/layer_norm/gamma",
)
SPEC = tuple(TensorSpec(name, (2,), "float32") for name in NAMES)
MODEL = ModelChoice(name="extra_dense_cnn")


def test_by_default_everything_is_shared() -> None:
    assert places(SPEC, Training(epochs=1, learning_rate=1e-3)) == frozenset()


def test_a_pattern_keeps_the_layers_that_it_matches() -> None:
    assert places(SPEC, Training(epochs=1, personal=("*/extra_*",), learning_rate=1e-3)) == {1}
    assert places(SPEC, Training(epochs=1, personal=("sequential/conv1/*", "004/*"), learning_rate=1e-3)) == {0, 4}


def test_local_batch_norm_keeps_all_of_its_tensors_and_no_other_norm() -> None:
    assert places(SPEC, Training(epochs=1, batch_norm="local", learning_rate=1e-3)) == {2, 3}
    assert places(SPEC, Training(epochs=1, batch_norm="averaged", learning_rate=1e-3)) == frozenset()


def test_what_stayed_lies_over_the_global_values_where_it_fits() -> None:
    weights = [np.zeros(2, np.float32) for _ in NAMES]
    over = {NAMES[1]: np.ones(2, np.float32), NAMES[2]: np.ones(3, np.float32), "unknown": np.ones(2, np.float32)}
    assert [float(tensor.sum()) for tensor in overlay(SPEC, weights, over)] == [0, 2, 0, 0, 0]


def test_a_place_is_no_part_of_a_layers_name() -> None:
    assert bare(NAMES[0]) == "sequential/conv1/kernel"
    assert bare("bn/gamma") == "bn/gamma"
