import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError, DataError
from common.learning.models import simple_cnn
from common.learning.tflite_files import check_result
from device import inference
from device.inference import Classifier

LABELS = ("no", "yes")


@pytest.mark.parametrize("grey", [0, 90, 127, 128, 200, 255])
@pytest.mark.parametrize("pixels", ["float32", "uint8", "uint8 quantised"])
def test_probability_and_label_follow_the_model(
    model: Callable[..., bytes], png: Callable[[int], bytes], grey: int, pixels: str
) -> None:
    outcome = Classifier("r1", model(pixels=pixels), LABELS, 1).classify(png(grey))

    expected = 1 / (1 + np.exp(-0.05 * (grey - 127.5)))
    tolerance = 0.013 if "quantised" in pixels else 1e-5  # half of the quantisation step of 2 pixels
    assert outcome.probability == pytest.approx(expected, abs=tolerance)
    assert outcome.label == LABELS[outcome.probability >= 0.5]
    assert 0 < outcome.milliseconds < 1000


def test_a_quantised_output_is_read_as_a_probability(model: Callable[..., bytes], png: Callable[[int], bytes]) -> None:
    outcome = Classifier("r1", model(result="probability quantised"), LABELS, 1).classify(png(150))

    assert outcome.probability == pytest.approx(1 / (1 + np.exp(-0.05 * 22.5)), abs=1 / 256)


def test_a_probability_of_one_half_is_the_positive_label(
    model: Callable[..., bytes], png: Callable[[int], bytes]
) -> None:
    outcome = Classifier("r1", model(centre=100.0), ("clear", "lesion"), 1).classify(png(100))

    assert (outcome.probability, outcome.label) == (0.5, "lesion")


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"shape": (1, 8, 6, 3)}, r"takes \[1, 8, 6, 3\] where one square RGB image"),
        ({"shape": (2, 8, 8, 3)}, "where one square RGB image"),
        ({"shape": (1, 8, 8, 1)}, "where one square RGB image"),
        ({"slope": float("nan")}, "gave nan where a probability"),
        ({"result": "logit"}, "gave -6.375 where a probability"),
        ({"result": "logit", "slope": -0.001, "centre": 500.0}, "last operator is ADD where LOGISTIC or SOFTMAX"),
        ({"result": "probability beside the logit"}, "has 2 outputs where one probability"),
    ],
)
def test_a_model_of_another_kind_is_refused_when_it_is_loaded(
    model: Callable[..., bytes], faults: dict[str, object], reason: str
) -> None:
    with pytest.raises(DataError, match=f"release r9: .*{reason}"):
        Classifier("r9", model(**faults), LABELS, 1)


@pytest.mark.parametrize("result", ["probability", "probability quantised", "probability reshaped", "softmax"])
def test_what_changes_a_probabilitys_form_only_is_accepted_behind_it(model: Callable[..., bytes], result: str) -> None:
    assert Classifier("r1", model(result=result), LABELS, 1).image_size == 8


@given(st.data())
def test_a_damaged_file_is_never_more_than_a_data_error(model: Callable[..., bytes], data: st.DataObject) -> None:
    content = model()
    place = data.draw(st.integers(0, len(content) - 1))
    damaged = content[:place] + data.draw(st.binary(max_size=8)) + content[place + 4 :]
    with contextlib.suppress(DataError):
        check_result(damaged[: data.draw(st.integers(0, len(damaged)))])


@pytest.mark.parametrize("cut", [0, 1, 100, 400])
def test_a_file_that_is_no_model_is_refused(model: Callable[..., bytes], cut: int) -> None:
    with pytest.raises(DataError, match="release r9: not a TFLite model that runs here"):
        Classifier("r9", model()[:cut], LABELS, 1)


def test_a_release_with_three_labels_is_refused(model: Callable[..., bytes]) -> None:
    with pytest.raises(DataError, match="it has 3 labels"):
        Classifier("r9", model(), ("a", "b", "c"), 1)


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty"), (b"hello", "neither a JPEG nor a PNG")])
def test_what_is_no_image_is_refused_with_the_reason(model: Callable[..., bytes], data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Classifier("r1", model(), LABELS, 1).classify(data)


def test_the_second_interpreter_is_used_where_the_first_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "INTERPRETERS", ("no_such_package.interpreter", "ai_edge_litert.interpreter"))

    assert inference.find_interpreter()[0] == "ai_edge_litert"


def test_without_an_interpreter_the_error_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch, model: Callable[..., bytes]
) -> None:
    monkeypatch.setattr(inference, "INTERPRETERS", ("no_such_package.interpreter",))

    with pytest.raises(ConfigError, match=r"install fedpi\[inference\]"):
        Classifier("r1", model(), LABELS, 1)


def modules_after(code: str, *arguments: str) -> set[str]:
    code = f"import json, sys\n{code}\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout))


def test_the_daemon_loads_neither_tensorflow_nor_what_only_serving_needs() -> None:
    loaded = modules_after("import device.daemon")

    assert "device" in loaded
    assert not loaded & {"tensorflow", "keras", "PIL", "ai_edge_litert", "tflite_runtime", "sklearn"}


def test_serving_classifies_without_tensorflow(
    model: Callable[..., bytes], png: Callable[[int], bytes], tmp_path: Path
) -> None:
    (tmp_path / "model").write_bytes(model())
    (tmp_path / "image").write_bytes(png(250))
    code = (
        "import device.serving, device.inference, pathlib\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "classifier = device.inference.Classifier('r1', (folder / 'model').read_bytes(), ('no', 'yes'), 1)\n"
        "assert classifier.classify((folder / 'image').read_bytes()).label == 'yes'"
    )
    loaded = modules_after(code, str(tmp_path))

    assert {"PIL", "ai_edge_litert"} <= loaded
    assert not loaded & {"tensorflow", "keras", "sklearn", "scipy"}


def test_a_picture_that_the_interpreter_fails_on_is_a_data_error(
    model: Callable[..., bytes], png: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise RuntimeError("out of memory in node 3")

    classifier = Classifier("r1", model(), LABELS, 1)
    monkeypatch.setattr(inference, "_quantised", fail)
    with pytest.raises(DataError, match="release r1 failed on it"):
        classifier.classify(png(9))


@pytest.mark.tensorflow
def test_an_exported_keras_model_says_the_same_here(png: Callable[[int], bytes], tmp_path: Path) -> None:
    learner = simple_cnn({"image_size": 32})
    weights = learner.initial(7)
    classifier = Classifier("r1", learner.export(weights, tmp_path).read_bytes(), LABELS, 1)
    greys = (0, 64, 128, 255)
    images = np.stack([np.full((32, 32, 3), grey, np.uint8) for grey in greys])

    found = [classifier.classify(png(grey)).probability for grey in greys]

    assert classifier.image_size == 32
    assert found == pytest.approx(list(learner.predict(weights, images)), abs=1e-4)
