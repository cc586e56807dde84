"""TFLite files in fewer bytes give the same numbers, whichever kernels run them."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from common.learning import models
from common.learning.seam import Images

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
SIZE = 32
FACTORIES: dict[str, Any] = {
    "simple_cnn": lambda: models.simple_cnn({"image_size": SIZE}),
    "mobilenet_v2": lambda: models.mobilenet_v2({"image_size": SIZE, "alpha": 0.35, "weights": None}),
}
KERNELS = ("AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "BUILTIN_REF")
"""XNNPACK's, LiteRT's fast ones, and those that the others are measured by."""


class Files:
    """A model's float32 file, and its int8 one as the converter wrote it."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        learner = FACTORIES[name]()
        weights = [
            np.full_like(tensor, 0.1) if named.name.endswith("moving_variance") else tensor  # lest signals fade
            for named, tensor in zip(learner.spec(), learner.initial(0), strict=True)
        ]
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 256, (12, 4, 4, 3), np.uint8)
        self.images: Images = np.kron(coarse, np.ones((1, SIZE // 4, SIZE // 4, 1), np.uint8))
        with monkeypatch.context() as patch:
            patch.setattr("common.learning.conversion.slim", lambda content: content)
            self.int8 = learner.convert(weights, "int8", self.images)
        self.float32 = learner.convert(weights, "float32", self.images)


@pytest.fixture(scope="module", params=FACTORIES)
def files(request: pytest.FixtureRequest) -> Files:
    with pytest.MonkeyPatch.context() as patch:
        return Files(request.param, patch)


def run(content: bytes, images: Images, kernels: str) -> NDArray[np.float32]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=OpResolverType[kernels])
    interpreter.allocate_tensors()
    given, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    found = []
    for image in images:
        interpreter.set_tensor(given, image[None].astype(np.float32))
        interpreter.invoke()
        found.append(interpreter.get_tensor(result)[0, 0])
    return np.array(found)


@pytest.mark.parametrize("kernels", KERNELS)
def test_the_slim_file_gives_the_same_bits(files: Files, kernels: str) -> None:
    from common.learning.slimming import slim

    expected = run(files.int8, files.images, kernels)
    assert len(np.unique(expected)) > 3
    np.testing.assert_array_equal(run(slim(files.int8), files.images, kernels), expected)


def test_the_slim_file_has_at_most_30_percent_of_float32_and_slimming_again_changes_nothing(files: Files) -> None:
    from common.learning.slimming import slim

    content = slim(files.int8)
    assert len(content) <= 0.3 * len(files.float32) < len(files.int8)
    assert len(slim(content)) == len(content)


def test_all_tensors_have_as_many_scales_as_before_and_single_ones_their_values(files: Files) -> None:
    from common.learning.framework import flatbuffer_utils
    from common.learning.slimming import slim

    before, after = (
        flatbuffer_utils.convert_bytearray_to_object(bytearray(content)).subgraphs[0].tensors
        for content in (files.int8, slim(files.int8))
    )
    scales = [[t.quantization.scale for t in (a, b) if t.quantization] for a, b in zip(before, after, strict=True)]
    for pair in scales:
        assert [np.size(one) for one in pair[:1]] == [np.size(one) for one in pair[1:]]
        if pair and np.size(pair[0]) == 1:
            np.testing.assert_array_equal(*pair)
