"""Weight files by strangers: what leads to other files is refused, what is damaged ends soon, in a sentence."""

import resource
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from common.errors import DataError, FedpiError
from common.learning.file_child import INSIDE_KERAS
from common.learning.file_reader import allowance
from common.learning.numpy_learner import numpy_learner
from common.learning.weight_files import read, write
from coordinator.cli import main

pytestmark = pytest.mark.process  # foreign files are read in a process of their own

SECRET = b"-----BEGIN PRIVATE KEY-----"
Plant = Callable[[h5py.File, Path], None]


def external_storage(file: h5py.File, secret: Path) -> None:
    file.create_dataset("layers/dense/vars/0", (len(SECRET),), np.uint8, external=[(str(secret), 0, len(SECRET))])


def external_link(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret.with_name("other.h5"), "w") as other:
        other["vars/0"] = np.ones(3, np.float32)
    file["layers/dense"] = h5py.ExternalLink(str(secret.with_name("other.h5")), "/")


def virtual_dataset(file: h5py.File, secret: Path) -> None:
    with h5py.File(secret.with_name("source.h5"), "w") as other:
        other["data"] = np.ones(3, np.float32)
    layout = h5py.VirtualLayout((3,), np.float32)
    layout[:] = h5py.VirtualSource(str(secret.with_name("source.h5")), "data", (3,))
    file.create_virtual_dataset("layers/dense/vars/0", layout)


def soft_link(file: h5py.File, secret: Path) -> None:
    del secret
    file["layers/dense/vars/0"] = h5py.SoftLink("/layers/other/vars/0")
    file["layers/other/vars/0"] = np.ones(3, np.float32)


def group_in_itself(file: h5py.File, secret: Path) -> None:
    del secret
    file["layers/dense/vars/0"] = np.ones(3, np.float32)
    file["layers/dense/layers"] = file["layers"]


PLANTS: dict[Plant, str] = {
    external_storage: "has its numbers in another file",
    external_link: "is an external link",
    virtual_dataset: "is a virtual dataset",
    soft_link: "is a soft link",
    group_in_itself: "stands in it twice",
}


def plant(path: Path, make: Plant) -> Path:
    """Write a weight file of the kind that the name of `path` says, with the plant in it."""
    secret = path.with_name("key.pem")
    secret.write_bytes(SECRET)
    inside = path.with_name("inside.h5")
    with h5py.File(inside, "w") as file:
        make(file, secret)
        if path.name == "model.h5":  # as Keras 2 lists it
            file.attrs["layer_names"] = [b"dense"]
            file.require_group("layers")
            file["dense/kernel:0"] = np.ones(3, np.float32)
            file["dense"].attrs["weight_names"] = [b"kernel:0"]
    if path.suffix == ".keras":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(inside, INSIDE_KERAS)
    else:
        inside.replace(path)
    return path


@pytest.mark.parametrize("make", PLANTS)
@pytest.mark.parametrize("name", ["model.weights.h5", "model.h5", "model.keras"])
def test_what_leads_out_of_the_file_is_refused(tmp_path: Path, name: str, make: Plant) -> None:
    path = plant(tmp_path / name, make)
    with pytest.raises(DataError, match=rf"{name}: .*{PLANTS[make]}"):
        read(path)


def test_aggregate_copies_no_other_file_of_the_machine(tmp_path: Path) -> None:
    path, out = plant(tmp_path / "model.weights.h5", external_storage), tmp_path / "out.weights.h5"
    result = CliRunner().invoke(main, ["aggregate", str(path), "--out", str(out)])
    assert (result.exit_code, result.stderr.count("\n")) == (65, 1)
    assert not out.exists()
    with pytest.raises(DataError, match="has its numbers in another file"):
        write(out, {"dense/0": np.zeros(len(SECRET), np.uint8)}, path)


def test_a_file_that_claims_a_tebibyte_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", (1 << 38,), np.float32, chunks=(1024,), compression="gzip")
    assert (tmp_path / "model.weights.h5").stat().st_size < 10_000
    with pytest.raises(DataError, match=r"claims to hold 1,099,511,627,776 bytes"):
        read(tmp_path / "model.weights.h5")


@pytest.mark.parametrize("is_honest", [True, False])
@pytest.mark.parametrize(("name", "member"), [("model.keras", INSIDE_KERAS), ("model.npz", "dense.npy")])
def test_an_archive_that_unpacks_to_much_more_is_refused(
    tmp_path: Path, name: str, member: str, *, is_honest: bool
) -> None:
    path = tmp_path / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(member, "w") as file:
        for _ in range(80):
            file.write(bytes(1 << 20))
    assert allowance(path.stat().st_size) < 80 << 20
    if not is_honest:  # the sizes stand in the directory at the end and before the member
        content = path.read_bytes()
        path.write_bytes(content.replace((80 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=rf"{name}: "):
        read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 60_000  # kB


def test_an_array_whose_head_claims_more_than_is_there_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", dense=np.zeros(5, np.float32))
    content = (tmp_path / "model.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "model.npz") as archive:
        head = archive.read("dense.npy").replace(b"(5,), }     ", b"(5000000000,), }")[: 128 + 20]
    assert len(content) > len(head)
    with zipfile.ZipFile(tmp_path / "model.npz", "w") as archive:
        archive.writestr("dense.npy", head)
    with pytest.raises(DataError, match=r"claims shape \[5000000000\]"):
        read(tmp_path / "model.npz")


def test_python_objects_are_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", dense=np.array([{}], object))
    with pytest.raises(DataError, match="holds Python objects, which are code"):
        read(tmp_path / "model.npz")


def test_the_numpy_trainer_reads_by_the_same_rules(tmp_path: Path) -> None:
    learner = numpy_learner({"tensors": 1, "parameters": 3})
    with zipfile.ZipFile(tmp_path / "model.npz", "w") as archive, archive.open("tensor-000.npy", "w") as file:
        np.save(file, np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match="holds Python objects, which are code"):
        learner.read(tmp_path / "model.npz")


# ---- damage ----------------------------------------------------------------------------------


def tree(path: Path, at: int, *, level: int | None = None) -> Path:
    """Write a file in whose first index node the address at the offset `at` is that of the node itself."""
    with h5py.File(path, "w") as file:
        for number in range(8):
            file[f"layers/dense_{number}/vars/0"] = np.ones(4, np.float32)
    content = bytearray(path.read_bytes())
    node = content.index(b"TREE")
    content[node + at : node + at + 8] = node.to_bytes(8, "little")
    if level is not None:
        content[node + 5] = level
    path.write_bytes(content)
    return path


def test_a_file_that_is_never_read_to_its_end_is_given_up(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(DataError, match=r"model\.h5: .* reading it does not end"):
        read(tree(tmp_path / "model.h5", 16))
    assert time.monotonic() - started < 20  # less than a second's work, on a machine that has other work to do


def test_a_file_that_crashes_the_library_ends_no_process_of_ours_and_the_next_one_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"model\.h5: .* crashes"):
        read(tree(tmp_path / "model.h5", 32, level=1))
    np.savez(tmp_path / "model.npz", dense=np.arange(3))
    assert read(tmp_path / "model.npz")["dense"].tolist() == [0, 1, 2]


def test_a_named_pipe_and_a_folder_are_no_weight_files(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(DataError, match="no plain file"):
        read(tmp_path / "pipe.h5")
    with pytest.raises(DataError, match="it is a folder"):
        read(tmp_path)


def test_whatever_was_damaged_gives_one_of_our_errors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        for number in range(4):
            file[f"layers/dense_{number}/vars/0"] = rng.normal(size=(4, 4))
            file[f"layers/dense_{number}/vars"].attrs["name"] = f"dense_{number}"
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.write(tmp_path / "model.weights.h5", INSIDE_KERAS)
        archive.writestr("config.json", '{"class_name": "Sequential", "config": {"layers": []}}')
    np.savez(tmp_path / "model.npz", dense=rng.normal(size=(4, 4)))
    refused = 0
    for turn in range(20):
        for source in ("model.weights.h5", "model.keras", "model.npz"):
            content = bytearray((tmp_path / source).read_bytes())
            for at in rng.integers(0, len(content), 1 + turn % 8):
                content[at] = rng.integers(256)
            bad = tmp_path / "bad.h5"
            bad.write_bytes(content if turn % 3 else content[: rng.integers(len(content))])
            try:
                read(bad)
            except FedpiError as error:
                assert "\n" not in str(error)  # noqa: PT017 - most files are refused, some are still whole
                refused += 1
    assert refused > 20
