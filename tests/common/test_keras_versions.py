"""Files of other versions of Keras, laid out here as those write them, are read rightly or refused."""

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from common.errors import DataError
from common.learning.file_child import INSIDE_KERAS
from common.learning.matching import match_all
from common.learning.weight_files import load, write
from common.weights import Tensor
from coordinator.cli import main as coordinator
from device.cli import main

VARIABLES = {"0": "kernel", "1": "bias"}
NORM = ("gamma", "beta", "moving_mean", "moving_variance")
Layers = dict[str, list[Tensor]]
"""Tensors by path of the layer in the file."""


def by_place(path: Path, layers: Layers, config: Mapping[str, Any] | None = None, *, is_twice: bool = False) -> Path:
    """As Keras 2.13 to 3.5 lay out weights; `is_twice` as 2.13, which counts layers with weights twice."""
    container = "_layer_checkpoint_dependencies" if is_twice else "layers"
    inside = path.with_name("inside.h5")
    with h5py.File(inside, "w") as file:
        for place, tensors in layers.items():
            group = file.require_group("".join(f"/{container}/{level}" for level in place.split("/")) + "/vars")
            for number, tensor in enumerate(tensors):
                group[str(number)] = tensor
    if path.suffix != ".keras":
        return inside.replace(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inside, INSIDE_KERAS)
        archive.writestr("config.json", json.dumps(config))
    return path


def keras_2(path: Path, layers: Mapping[str, Mapping[str, Tensor]], config: Mapping[str, Any] | None = None) -> Path:
    """As Keras 2 lays out whole models: `layers` has the tensors of each layer by their names."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, tensors in layers.items():
            root.create_group(layer).attrs["weight_names"] = [name.encode() for name in tensors]
            for name, tensor in tensors.items():
                root[f"{layer}/{name}"] = tensor
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
    return path


HEADS = {"conv2d": (3, 3, 3, 8), "dense_1": (8, 8), "dense": (8, 8), "dense_2": (8, 1)}
"""Layers in the order in which images pass them: `dense` was made before `dense_1`, and comes after it."""
VALUES = {
    name: [np.full(shape, place, np.float32), np.full(shape[-1], -place, np.float32)]
    for place, (name, shape) in enumerate(HEADS.items(), 1)
}
CONFIG = {
    "class_name": "Functional",
    "config": {
        "name": "model",
        "layers": [
            {"class_name": "Conv2D" if name == "conv2d" else "Dense", "config": {"name": name}} for name in HEADS
        ],
    },
}
PLACES = dict(zip(("conv2d", "dense", "dense_1", "dense_2"), VALUES.values(), strict=True))
PLACES_TWICE = dict(zip(("conv2d", "dense", "dense_2", "dense_4"), VALUES.values(), strict=True))


@pytest.mark.process
@pytest.mark.parametrize(("places", "is_twice"), [(PLACES, False), (PLACES_TWICE, True)])
def test_the_list_of_layers_says_which_place_is_which_layer(tmp_path: Path, places: Layers, *, is_twice: bool) -> None:
    file = load(by_place(tmp_path / "model.keras", places, CONFIG, is_twice=is_twice))
    assert not file.is_by_place
    for name, (kernel, bias) in VALUES.items():
        np.testing.assert_array_equal(file.tensors[f"{name}/0"], kernel)
        np.testing.assert_array_equal(file.tensors[f"{name}/1"], bias)


def test_layers_of_equal_shapes_are_never_matched_by_guess() -> None:
    model = {"first/0": (8, 8), "second/0": (8, 8), "last/0": (8, 1)}
    assert match_all(model, {"a/0": (8, 8), "b/0": (8, 8), "last/0": (8, 1)}) == {"last/0": "last/0"}
    assert match_all(model, {"first/0": (8, 8), "b/0": (8, 8), "c/0": (8, 1)}) == {
        "first/0": "first/0",
        "second/0": "b/0",
        "last/0": "c/0",
    }


@pytest.mark.process
def test_places_are_aggregated_with_places_alone(tmp_path: Path) -> None:
    one, other = (by_place(tmp_path / f"{name}.weights.h5", PLACES) for name in ("one", "other"))
    named = by_place(tmp_path / "named.keras", PLACES, CONFIG)

    def aggregate(*arguments: object) -> Result:
        return CliRunner().invoke(coordinator, ["aggregate", *map(str, arguments)], catch_exceptions=False)

    assert aggregate(one, other, "--out", tmp_path / "out.weights.h5").exit_code == 0
    np.testing.assert_array_equal(load(tmp_path / "out.weights.h5").tensors["dense/0"], PLACES["dense"][0])
    for files, out in (((one, named), "out.weights.h5"), ((named, one), "out.keras"), ((one, other), "out.npz")):
        result = aggregate(*files, "--out", tmp_path / out)
        assert (result.exit_code, result.stderr.count("\n")) == (65, 1)
        assert "by class and place only" in result.stderr


# ---- into models -----------------------------------------------------------------------------


def functional() -> Any:
    from common.learning.framework import keras
    from common.learning.keras_learner import KerasLearner

    keras.backend.clear_session()
    given = keras.Input((32, 32, 3))
    head, middle = (keras.layers.Dense(8, activation="relu") for _ in range(2))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(8, 3)(given))
    return KerasLearner(keras.Model(given, keras.layers.Dense(1, activation="sigmoid")(head(middle(pooled)))))


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
@pytest.mark.parametrize(("places", "is_twice"), [(PLACES, False), (PLACES_TWICE, True)])
def test_no_two_kernels_are_swapped(tmp_path: Path, name: str, places: Layers, *, is_twice: bool) -> None:
    learner = functional()
    path = by_place(tmp_path / name, places, CONFIG, is_twice=is_twice)
    wanted = [value for values in VALUES.values() for value in values]
    for found in (learner.read(path), learner.lay_over(learner.initial(0), path)[0]):
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.tensorflow
def test_places_of_another_network_are_refused(tmp_path: Path) -> None:
    learner = functional()
    path = by_place(tmp_path / "model.weights.h5", {**PLACES, "dense_3": PLACES["dense_1"]})
    for read in (learner.read, lambda path: learner.lay_over(learner.initial(0), path)):
        with pytest.raises(DataError, match=r"model\.weights\.h5: it names layers by class and place only"):
            read(path)


def mobilenet(values: Mapping[str, Tensor], *, is_nested: bool) -> dict[str, dict[str, Tensor]]:
    """Name MobileNetV2's tensors as a transfer learning of TensorFlow 2.15 does."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in values.items():
        *_, layer, variable = name.split("/")
        has_norm = f"{name.rpartition('/')[0]}/moving_mean" in values
        kind = variable if variable in NORM else NORM[int(variable)] if has_norm else VARIABLES[variable]
        own = "dense_1" if layer == "probability" else layer
        top = "mobilenetv2_0.35_32" if is_nested and layer != "probability" else own
        layers.setdefault(top, {})[f"{own}/{kind}:0"] = value
    return layers


@pytest.mark.tensorflow
@pytest.mark.parametrize("is_nested", [True, False])
def test_a_transfer_learning_of_tensorflow_2_15_is_a_mobilenet_v2(tmp_path: Path, *, is_nested: bool) -> None:
    from common.learning import keras_files
    from common.learning.models import mobilenet_v2

    learner = mobilenet_v2({"image_size": 32, "weights": None})
    rng = np.random.default_rng(0)
    wanted = [rng.random(spec.shape, np.float32) for spec in learner.spec()]
    named = dict(zip(keras_files.names(learner._model), wanted, strict=True))  # noqa: SLF001 - no other way to them
    path = keras_2(tmp_path / "model.h5", mobilenet(named, is_nested=is_nested))
    found, count = learner.lay_over(learner.initial(0), path)
    assert count == len(wanted) == 262
    for one, other, third in zip(learner.read(path), wanted, found, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(third, other)
    # the same file, named as pretrained weights, gives all but the head
    start = mobilenet_v2({"image_size": 32, "weights": str(path)}).initial(0)
    assert [np.array_equal(one, other) for one, other in zip(start, wanted, strict=True)] == [True] * 260 + [False] * 2


# ---- the file's own network is judged --------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, and the files of a simple CNN that takes 32 pixels."""
    folder = tmp_path_factory.mktemp("judged")
    rng = np.random.default_rng(0)
    for label in ("no", "yes"):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (40, 40), np.uint8)
            Image.fromarray(pixels).save(folder / "images" / label / f"{number}.png")
    from common.learning.models import simple_cnn

    learner = simple_cnn({"image_size": 32})
    for name in ("cnn.h5", "cnn.keras", "cnn.weights.h5", "cnn.npz"):
        learner.save(learner.initial(0), folder / name)
    return folder


def call(home: Path, command: str, file: str, *arguments: object) -> Result:
    given = [command, home / file, "--data", home / "images", *arguments]
    return CliRunner().invoke(main, [str(argument) for argument in given], catch_exceptions=False)


@pytest.mark.tensorflow
@pytest.mark.parametrize("file", ["cnn.h5", "cnn.keras", "cnn.weights.h5", "cnn.npz"])
def test_the_file_says_which_network_is_judged(home: Path, file: str) -> None:
    result = call(home, "evaluate", file, "--json")
    assert result.exit_code == 0, result.output
    assert (
        json.loads(result.stdout)[0]["figures"]
        == json.loads(call(home, "evaluate", "cnn.h5", "--json").stdout)[0]["figures"]
    )


@pytest.mark.tensorflow
@pytest.mark.parametrize("file", ["cnn.h5", "cnn.npz"])
@pytest.mark.parametrize(
    ("flags", "both"),
    [
        (("--option", "image_size=64"), ("image_size 32", "64")),
        (("--model", "mobilenet_v2"), ("simple_cnn", "mobilenet_v2")),
        (("--model", "extra_dense_cnn"), ("simple_cnn", "extra_dense_cnn")),
    ],
)
def test_a_flag_that_contradicts_the_file_is_wrong_use(
    home: Path, file: str, flags: tuple[str, ...], both: tuple[str, str]
) -> None:
    result = call(home, "evaluate", file, *flags)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert all(value in result.stderr for value in both)


def changed(home: Path, name: str, change: Callable[[dict[str, Any]], None]) -> str:
    """Copy `cnn.keras` with another description of its layers."""
    with zipfile.ZipFile(home / "cnn.keras") as archive, zipfile.ZipFile(home / name, "w") as copy:
        config = json.loads(archive.read("config.json"))
        change(config)
        copy.writestr("config.json", json.dumps(config))
        copy.writestr(INSIDE_KERAS, archive.read(INSIDE_KERAS))
    return name


@pytest.mark.tensorflow
def test_layers_that_compute_something_else_are_another_network(home: Path) -> None:
    def rescale(config: dict[str, Any]) -> None:
        layers = config["config"]["layers"]
        next(layer for layer in layers if layer["class_name"] == "Rescaling")["config"]["scale"] = 1.0

    def insert_code(config: dict[str, Any]) -> None:
        config["config"]["layers"].insert(
            2, {"class_name": "Lambda", "config": {"name": "code", "function": "exit(1)"}}
        )

    for change, said in ((rescale, "has scale 1.0"), (insert_code, "'code' is a Lambda")):
        result = call(home, "evaluate", changed(home, "changed.keras", change))
        assert (result.exit_code, result.stderr.count("\n")) == (65, 1)
        assert said in result.stderr


@pytest.mark.tensorflow
def test_tensors_left_over_or_missing_are_refused(home: Path) -> None:
    tensors = load(home / "cnn.npz").tensors
    write(home / "more.npz", {**tensors, "other/0": np.ones(3, np.float32)}, home / "cnn.npz")
    assert (result := call(home, "evaluate", "more.npz")).exit_code == 65
    assert "the model has no tensor 'other/0'" in result.stderr
    del tensors["probability/1"]
    write(home / "less.npz", tensors, home / "cnn.npz")
    assert (result := call(home, "export", "less.npz", "--out", home / "out")).exit_code == 65
    assert "it has no tensor 'probability/1'" in result.stderr


@pytest.mark.tensorflow
def test_an_export_that_wrote_no_file_has_failed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common.errors import WorkError
    from common.learning.keras_learner import KerasLearner

    def fail(*_: object) -> bytes:
        raise WorkError("the model has no int8 form")

    monkeypatch.setattr(KerasLearner, "convert", fail)
    result = call(home, "export", "cnn.h5", "--variant", "int8", "--out", home / "out")
    assert result.exit_code == 70
    assert "no file was written: the model has no int8 form" in result.stderr


@pytest.mark.tensorflow
def test_training_says_first_how_much_it_takes_over(home: Path) -> None:
    result = call(home, "evaluate", "cnn.h5")
    assert result.exit_code == 0
    given = ("--data", home / "images", "--model", "extra_dense_cnn", "--option", "image_size=32", "--epochs", 1)
    arguments = ["train", *given, "--init", home / "cnn.h5", "--no-plot", "--out", home / "next.h5"]
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0
    taken, *epochs = result.stderr.splitlines()
    assert "cnn.h5: 10 of 14 tensors taken over, 69 % of the values" in taken
    assert any("epoch 1" in line for line in epochs)
