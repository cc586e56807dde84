"""What the offline commands refuse, in one sentence each."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from common.errors import ConfigError
from common.learning.recipe import read_recipe
from common.learning.variants import choose
from coordinator.cli import main as coordinator
from device.cli import main as device


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in ("no", "yes"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(tmp_path / "set" / label / f"{number}.png")
    return tmp_path / "set"


def call(group: Any, *arguments: object) -> Result:
    return CliRunner().invoke(group, [str(argument) for argument in arguments], catch_exceptions=False)


def refusal(group: Any, *arguments: object) -> tuple[int, str]:
    result = call(group, *arguments)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    return result.exit_code, result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--data", "SET", "--labels", "cat,dog"), "neither train/ nor the folders cat and dog"),
        (("--data", "SET", "--option", "image_sise=3"), "unknown key 'image_sise'; did you mean 'image_size'?"),
        (("--data", "SET", "--model", "resnet"), "model 'resnet' is not known here"),
        (("--data", "SET", "--model", "numpy"), "model 'numpy' writes and reads no files"),
        (("--data", "SET", "--recipe", "none.yaml"), "none.yaml: cannot read the configuration"),
    ],
)
def test_a_training_that_cannot_be_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, images: Path, tmp_path: Path
) -> None:
    given = [str(images) if argument == "SET" else argument for argument in arguments]
    code, said = refusal(device, "train", *given, "--out", tmp_path / "out.h5")
    assert code == 78
    assert sentence in said
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "--data: not given"),
        (("--data", "nowhere"), "'--data': nowhere: there is no such file or folder"),
        (("--data", "SET", "--init", "none.h5"), "'--init': none.h5: there is no such file or folder"),
        (("--data", "SET", "--labels", "no"), "--labels: 'no' is not of the form no,yes"),
        (("--data", "SET", "--option", "image_size"), "--option: 'image_size' is not of the form"),
    ],
)
def test_arguments_that_cannot_be_are_one_sentence_and_exit_2(
    arguments: tuple[str, ...], sentence: str, images: Path, tmp_path: Path
) -> None:
    given = [str(images) if argument == "SET" else argument for argument in arguments]
    code, said = refusal(device, "train", *given, "--out", tmp_path / "out.h5")
    assert (code, said.count("\n")) == (2, 1)
    assert sentence in said


def test_evaluate_takes_a_file_or_the_live_model(tmp_path: Path) -> None:
    (tmp_path / "model.h5").touch()
    code, said = refusal(coordinator, "evaluate", tmp_path / "model.h5", "--config", "coordinator.yaml")
    assert code == 2
    assert "name a model file or --config, one of the two" in said


def test_a_variant_that_is_unknown_is_named_and_all_are_the_default() -> None:
    with pytest.raises(ConfigError, match="'int4' is unknown; known are float32, float16, dynamic, int8"):
        choose(["int8", "int4"])
    assert choose([]) == ("float32", "float16", "dynamic", "int8")
    assert choose(["int8", "float32"]) == ("float32", "int8")


# ---- recipes ---------------------------------------------------------------------------------


def test_flags_beat_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: {name: simple_cnn, options: {image_size: 64, dropout: 0.1}}\ntraining: {epochs: 3}\n")
    recipe = read_recipe(path, None, {"image_size": 32}, {"epochs": 5, "seed": 2})
    assert recipe.model.options == {"image_size": 32, "dropout": 0.1}
    assert (recipe.training.epochs, recipe.training.seed, recipe.training.batch_size) == (5, 2, 16)


def test_a_coordinators_file_is_a_recipe_and_any_other_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.yaml"
    path.write_text("federation: brain\nstate: x\nmodel: {name: numpy}\ntraining: {epochs: 3, evaluate: false}\n")
    assert read_recipe(path, None, {}, {}).training.epochs == 3
    path.write_text("modle: {name: numpy}\n")
    with pytest.raises(ConfigError, match="unknown key 'modle'; did you mean 'model'"):
        read_recipe(path, None, {}, {})
    path.write_text("training: {epoch: 3}\n")
    with pytest.raises(ConfigError, match=r"unknown key 'training\.epoch'; did you mean 'epochs'"):
        read_recipe(path, None, {}, {})


def test_patience_without_a_validation_share_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.validation_share"):
        read_recipe(None, None, {}, {"patience": 2})


# ---- files -----------------------------------------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_weights_of_another_model_or_kind_are_refused_by_name(images: Path, tmp_path: Path) -> None:
    given = ("train", "--data", images, "--option", "image_size=16", "--epochs", 0, "--no-plot")
    np.savez(tmp_path / "other.npz", lstm=np.zeros(3, np.float32))
    code, said = refusal(device, *given, "--init", tmp_path / "other.npz", "--out", tmp_path / "out.h5")
    assert (code, "other.npz: it has no layer of model 'simple_cnn'" in said) == (65, True)
    (tmp_path / "cut.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\nand nothing more")
    code, said = refusal(device, *given, "--init", tmp_path / "cut.weights.h5", "--out", tmp_path / "out.h5")
    assert (code, "cut.weights.h5: cannot read the weights" in said) == (65, True)
    code, said = refusal(device, *given, "--out", tmp_path / "out.txt")
    assert (code, "out.txt: the name of a weight file must end in .weights.h5" in said) == (78, True)
    assert call(device, *given, "--out", tmp_path / "small.h5").exit_code == 0
    evaluated = ("evaluate", tmp_path / "small.h5", "--data", images, "--option", "image_size=32")
    code, said = refusal(device, *evaluated)
    assert (code, "small.h5: its network has image_size 16, and" in said) == (2, True)


@pytest.mark.tensorflow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_model_without_an_integer_form_says_why_and_keeps_the_other_variants(tmp_path: Path) -> None:
    from common.learning import variants
    from common.learning.framework import keras, tf
    from common.learning.keras_learner import KerasLearner
    from common.learning.seam import Examples, Site

    class Odd(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
        def call(self, pixels: Any) -> Any:
            return tf.math.floor(pixels / 64)

    head = (keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1, activation="sigmoid"))
    learner = KerasLearner(keras.Sequential([keras.Input((16, 16, 3)), Odd(), *head]))
    examples = Examples(np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8), np.arange(6) % 2)
    none = Examples(examples.images[:0], examples.labels[:0])
    found = variants.export(learner, learner.initial(0), Site(examples, none), tmp_path, variants.choose([]))
    assert [bool(v.reason) for v in found.variants] == [False, False, False, True]
    assert "no 8-bit form of FLOOR" in found.variants[3].reason
    assert found.images == 6
