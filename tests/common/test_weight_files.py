"""Weight files of Keras 2 and 3 and of NumPy, made here as those lay them out, or by Keras itself."""

import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from common.errors import ConfigError, DataError
from common.learning.file_child import INSIDE_KERAS
from common.learning.matching import match
from common.learning.weight_files import read, write
from common.weights import Tensor

pytestmark = pytest.mark.process  # foreign files are read in a process of their own

KERNEL = np.arange(6, dtype=np.float32).reshape(2, 3)
TENSORS: dict[str, Tensor] = {
    "conv2d/0": KERNEL,
    "conv2d/1": np.ones(3, np.float32),
    "batch_normalization/0": np.full(3, 2, np.float32),
    "batch_normalization/1": np.full(3, 3, np.float32),
    "batch_normalization/moving_mean": np.full(3, 4, np.float32),
    "batch_normalization/moving_variance": np.full(3, 5, np.float32),
    "head/dense/0": np.full((3, 1), 6, np.float32),
}
VARIABLES = {"0": "kernel", "1": "bias", "moving_mean": "moving_mean", "moving_variance": "moving_variance"}
PLACES = {"moving_mean": "2", "moving_variance": "3"}


def keras_3(path: Path, tensors: dict[str, Tensor] = TENSORS) -> Path:
    """As Keras 3 lays out weights; what belongs to training lies beside them."""
    with h5py.File(path, "w") as file:
        for name, tensor in tensors.items():
            *layers, variable = name.split("/")
            group = file.require_group("".join(f"/layers/{layer}" for layer in layers) + "/vars")
            group.attrs["name"] = layers[-1]
            group[PLACES.get(variable, variable)] = tensor
        file["optimizer/vars/0"] = np.full(1, np.nan)
        file["layers/conv2d/seed_generator/vars/0"] = np.zeros(2, np.uint32)
    return path


def keras_2(path: Path, tensors: dict[str, Tensor] = TENSORS, root: str = "model_weights") -> Path:
    """As Keras 2 lays out whole models; `root` "/" as it lays out weights alone."""
    with h5py.File(path, "w") as file:
        top = file.require_group(root)
        layers: dict[str, list[str]] = {}
        for name, tensor in tensors.items():
            layer, *below, variable = name.split("/")
            weight = "/".join([*(below or [layer]), f"{VARIABLES[variable]}:0"])
            layers.setdefault(layer, []).append(weight)
            top[f"{layer}/{weight}"] = tensor
        top.attrs["layer_names"] = [layer.encode() for layer in layers]
        for layer, weights in layers.items():
            top[layer].attrs["weight_names"] = [weight.encode() for weight in weights]
    return path


def keras_zip(path: Path) -> Path:
    inside = keras_3(path.with_suffix(".tmp.weights.h5"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(inside, INSIDE_KERAS)
    return path


def npz(path: Path) -> Path:
    named: dict[str, Any] = TENSORS
    np.savez(path, **named)
    return path


MAKERS = {
    "model.weights.h5": keras_3,
    "model.h5": keras_2,
    "alone.h5": lambda path: keras_2(path, root="/"),
    "model.keras": keras_zip,
    "model.npz": npz,
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_layout_gives_the_same_names_and_numbers(tmp_path: Path, name: str) -> None:
    found = read(MAKERS[name](tmp_path / name))
    assert found.keys() == TENSORS.keys()
    for key, tensor in TENSORS.items():
        np.testing.assert_array_equal(found[key], tensor)


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_written_like_a_file_reads_back_and_the_rest_of_the_file_stays(tmp_path: Path, name: str) -> None:
    like = MAKERS[name](tmp_path / name)
    changed = {key: tensor + 10 for key, tensor in TENSORS.items()}
    write(out := tmp_path / f"out-{name}", changed, like)
    found = read(out)
    assert all((found[key] == tensor).all() for key, tensor in changed.items())
    if name == "model.keras":
        assert zipfile.ZipFile(out).read("config.json") == b"{}"
    if name == "model.weights.h5":
        with h5py.File(out) as file:
            assert np.isnan(file["optimizer/vars/0"][0])
    write(again := tmp_path / f"again-{name}", changed, like)
    assert again.read_bytes() == out.read_bytes()


def test_any_layout_can_be_written_as_npz_and_no_other_as_another(tmp_path: Path) -> None:
    like = keras_3(tmp_path / "model.weights.h5")
    write(tmp_path / "out.npz", TENSORS, like)
    assert read(tmp_path / "out.npz").keys() == TENSORS.keys()
    with pytest.raises(ConfigError, match=r"must end in \.weights\.h5, or in \.npz"):
        write(tmp_path / "out.keras", TENSORS, like)
    with pytest.raises(DataError, match="no tensor 'more/0'"):
        write(tmp_path / "out.weights.h5", {**TENSORS, "more/0": KERNEL}, like)


def test_a_model_that_was_built_second_in_its_process_has_the_same_layers() -> None:
    first = dict.fromkeys(["conv2d/0", "dense/0", "dense_1/0", "block/dense/0"], (2, 3))
    second = dict.fromkeys(["dense_3/0", "conv2d_1/0", "dense_2/0", "block/dense_4/0"], (2, 3))
    assert match(first, second) == {
        "conv2d/0": "conv2d_1/0",
        "dense/0": "dense_2/0",
        "dense_1/0": "dense_3/0",
        "block/dense/0": "block/dense_4/0",
    }


def test_names_that_are_there_are_not_counted_anew() -> None:
    wanted, found = dict.fromkeys(["dense_1/0"], (2,)), dict.fromkeys(["dense/0", "dense_1/0"], (2,))
    assert match(wanted, found) == {"dense_1/0": "dense_1/0"}


def test_numbers_say_nothing_where_one_side_has_more_layers_of_the_kind() -> None:
    wanted, found = dict.fromkeys(["dense/0"], (2,)), dict.fromkeys(["dense_1/0", "dense_2/0"], (2,))
    assert match(wanted, found) == {}


def test_a_name_without_partner_is_left_out() -> None:
    assert match(dict.fromkeys(["a/0", "b/0"], (2,)), dict.fromkeys(["a/0", "c/0"], (2,))) == {"a/0": "a/0"}


def broken(path: Path, at: int) -> Path:
    path.write_bytes(path.read_bytes()[:at])
    return path


@pytest.mark.parametrize(
    ("name", "at"), [("model.weights.h5", 1000), ("model.h5", 40), ("model.keras", 900), ("model.npz", 700)]
)
def test_a_truncated_file_is_named(tmp_path: Path, name: str, at: int) -> None:
    path = broken(MAKERS[name](tmp_path / name), at)
    with pytest.raises(DataError, match=f"{name}: cannot read the weights: "):
        read(path)


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"{name}: cannot read the weights: No such file"):
        read(tmp_path / name)


def test_a_number_that_is_not_finite_is_named_with_its_tensor(tmp_path: Path) -> None:
    path = keras_3(tmp_path / "bad.weights.h5", {**TENSORS, "conv2d/1": np.array([1, np.inf, 1], np.float32)})
    with pytest.raises(DataError, match=r"bad\.weights\.h5: tensor 'conv2d/1' holds a number that is not finite"):
        read(path)


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    h5py.File(tmp_path / "empty.h5", "w").close()
    with pytest.raises(DataError, match="it holds no weights"):
        read(tmp_path / "empty.h5")


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "web page"),
        (b"\x1c\0\0\0TFL3", "TFLite"),
        (b"\x80\x02\x8a\nl\xfc", "PyTorch"),
        (b'\x10\0\0\0\0\0\0\0{"a":{}}', "safetensors"),
        (b"\x93NUMPY\x01\0", "one array without a name"),
        (b"\xff\xd8\xff\xe0", "first bytes are those of no weight file"),
    ],
)
def test_what_a_file_is_its_first_bytes_say(tmp_path: Path, head: bytes, said: str) -> None:
    (tmp_path / "model.h5").write_bytes(head)
    with pytest.raises(DataError, match=rf"model\.h5: .*{said}"):
        read(tmp_path / "model.h5")


def test_a_file_of_another_name_is_read_by_what_it_is(tmp_path: Path) -> None:
    keras_zip(tmp_path / "model.keras").rename(tmp_path / "model.h5")
    assert read(tmp_path / "model.h5").keys() == TENSORS.keys()


@pytest.mark.tensorflow
@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
def test_keras_reads_what_was_written_like_its_own_file(tmp_path: Path, suffix: str) -> None:
    from common.learning.framework import keras

    keras.utils.set_random_seed(1)
    block = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization()])
    model = keras.Sequential([keras.Input((4, 4, 1)), block, keras.layers.Flatten(), keras.layers.Dense(1)])
    like, out = tmp_path / f"like{suffix}", tmp_path / f"out{suffix}"
    model.save_weights(like) if suffix == ".weights.h5" else model.save(like)
    found = read(like)
    assert sorted(t.shape for t in found.values()) == sorted(tuple(w.shape) for w in model.weights)
    write(out, {name: tensor + 1 for name, tensor in found.items()}, like)
    before = model.get_weights()
    model.load_weights(out)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old + 1)
