"""`fedpi-coordinator aggregate` on weight files."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from coordinator.cli import main

pytestmark = pytest.mark.process  # foreign files are read in a process of their own

SHAPES = {"dense/0": (3, 2), "dense/1": (2,)}
Weights = dict[str, NDArray[np.float32]]


def weights(seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def h5(path: Path, tensors: Weights) -> Path:
    """As Keras 3 lays out `.weights.h5`."""
    with h5py.File(path, "w") as file:
        for name, tensor in tensors.items():
            layer, place = name.split("/")
            file[f"layers/{layer}/vars/{place}"] = tensor
    return path


def npz(path: Path, tensors: Weights) -> Path:
    named: dict[str, Any] = dict(tensors)
    np.savez(path, **named)
    return path


@pytest.fixture
def sites(tmp_path: Path) -> list[str]:
    return [str(h5(tmp_path / f"rasp{place}.weights.h5", weights(place))) for place in (1, 2)]


@pytest.fixture
def base(tmp_path: Path) -> str:
    return str(h5(tmp_path / "main.weights.h5", weights(0)))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["aggregate", *arguments])


def kernel(path: Path) -> NDArray[np.float32]:
    with h5py.File(path) as file:
        return np.asarray(file["layers/dense/vars/0"][()], np.float32)


def test_local_weights_are_averaged_by_examples_into_a_file_like_the_global_one(
    tmp_path: Path, sites: list[str], base: str
) -> None:
    out = tmp_path / "new.weights.h5"
    done = run(*sites, "--global", base, "--examples", "60,20", "--out", str(out), "--json")
    assert done.exit_code == 0, done.output
    expected = 0.75 * weights(1)["dense/0"] + 0.25 * weights(2)["dense/0"]
    np.testing.assert_allclose(kernel(out), expected, rtol=1e-6)
    report = json.loads(done.output)
    assert [share["weight"] for share in report["files"]] == [0.75, 0.25]
    assert (report["strategy"], report["tensors"], report["parameters"]) == ("fedavg", 2, 8)


def test_the_first_of_two_files_counts_eleven_times_the_second_by_inverse_index(
    tmp_path: Path, sites: list[str]
) -> None:
    """As the second seed project's server does, which knows no global model."""
    out = tmp_path / "GLOBAL.weights.h5"
    done = run(*sites, "--strategy", "inverse_index", "--out", str(out))
    assert done.exit_code == 0, done.output
    one, two = weights(1)["dense/0"].astype(np.float64), weights(2)["dense/0"].astype(np.float64)
    np.testing.assert_allclose(kernel(out), (11 * one + two) / 12, rtol=1e-6)
    assert "0.9167" in done.output
    swapped = tmp_path / "swapped.weights.h5"
    assert run(*sites[::-1], "--strategy", "inverse_index", "--out", str(swapped)).exit_code == 0
    assert not np.allclose(kernel(swapped), kernel(out)), "its order counts"


def test_files_of_different_layouts_go_together(tmp_path: Path, sites: list[str], base: str) -> None:
    other = str(npz(tmp_path / "rasp2.npz", weights(2)))
    mixed, alike = tmp_path / "mixed.npz", tmp_path / "alike.npz"
    assert run(sites[0], other, "--global", base, "--out", str(mixed)).exit_code == 0
    assert run(*sites, "--global", base, "--out", str(alike)).exit_code == 0
    assert mixed.read_bytes() == alike.read_bytes()


def test_a_server_optimiser_goes_on_where_it_stopped(tmp_path: Path, sites: list[str], base: str) -> None:
    moments, options = str(tmp_path / "moments"), ("--strategy", "fedavgm", "--option", "momentum=0.5")
    once, twice = tmp_path / "once.weights.h5", tmp_path / "twice.weights.h5"
    for out in (once, twice):
        done = run(*sites, "--global", base, *options, "--moments", moments, "--out", str(out))
        assert done.exit_code == 0, done.output
    first = kernel(once) - weights(0)["dense/0"]
    np.testing.assert_allclose(kernel(twice) - weights(0)["dense/0"], 1.5 * first, rtol=1e-5)
    done = run(*sites, "--global", base, "--strategy", "fedadam", "--moments", moments, "--out", str(once))
    assert (done.exit_code, "belongs to another strategy or model" in done.output) == (65, True)


# ---- what is refused ------------------------------------------------------------------------


def extra(tensors: Weights) -> Weights:
    return {**tensors, "extra/0": np.ones(2, np.float32)}


def test_tensors_that_the_global_model_lacks_are_refused_or_left_out(
    tmp_path: Path, sites: list[str], base: str
) -> None:
    variant = str(h5(tmp_path / "variant.weights.h5", extra(weights(2))))
    out = tmp_path / "out.weights.h5"
    done = run(sites[0], variant, "--global", base, "--out", str(out))
    assert done.exit_code == 65
    assert "variant.weights.h5: the global weights have no tensor 'extra/0'" in done.output
    assert not out.exists()
    assert run(sites[0], variant, "--global", base, "--out", str(out), "--shared-only").exit_code == 0
    np.testing.assert_allclose(kernel(out), (weights(1)["dense/0"] + weights(2)["dense/0"]) / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (
            {"dense/0": np.ones((2, 3), np.float32), "dense/1": np.ones(2, np.float32)},
            "tensor 'dense/0' has shape [2, 3]",
        ),
        (
            {"dense/0": np.ones((3, 2), np.float64), "dense/1": np.ones(2, np.float32)},
            "tensor 'dense/0' has dtype float64",
        ),
        ({"other/0": np.ones((3, 2), np.float32), "dense/1": np.ones(2, np.float32)}, "it has no tensor 'dense/0'"),
        ({"dense/0": np.full((3, 2), np.nan, np.float32), "dense/1": np.ones(2, np.float32)}, "is not finite"),
    ],
    ids=["shape", "dtype", "layer", "nan"],
)
def test_a_file_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, sites: list[str], base: str, tensors: Any, reason: str
) -> None:
    bad = str(h5(tmp_path / "bad.weights.h5", tensors))
    done = run(sites[0], bad, "--global", base, "--out", str(tmp_path / "out.weights.h5"))
    assert done.exit_code == 65
    assert f"{bad}: " in done.output
    assert reason in done.output
    assert "Traceback" not in done.output


def test_a_truncated_file_is_refused_by_name(tmp_path: Path, sites: list[str], base: str) -> None:
    path = Path(sites[1])
    path.write_bytes(path.read_bytes()[:500])
    done = run(*sites, "--global", base, "--out", str(tmp_path / "out.weights.h5"))
    assert done.exit_code == 65
    assert f"{path}: cannot read the weights: " in done.output


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--strategy", "fedavg2"], "there is no 'fedavg2'; did you mean 'fedavg'?"),
        (["--strategy", "krum"], "krum with these options needs at least 5 files; here are 2"),
        (["--strategy", "fedadam"], "name their file with --global"),
        (["--strategy", "fedadam", "--option", "beta2=2"], "key 'beta2': expected a number < 1.0"),
        (["--strategy", "fedadam", "--option", "beta2"], "write it as KEY=VALUE"),
        (["--strategy", "fedadam", "--option", "beta2={"], "--option beta2={, line 1: not valid YAML"),
        (["--examples", "7"], "give a number above 0 for each of the 2 files"),
        (["--examples", "7,0"], "give a number above 0"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(tmp_path: Path, sites: list[str], flags: list[str], reason: str) -> None:
    done = run(*sites, *flags, "--out", str(tmp_path / "out.weights.h5"))
    assert done.exit_code == 2
    assert reason in done.output
