"""Weight files of every layout: damaged bytes, contradicting structures, claims of huge sizes, ways out of the file.

A secret lies beside the files; no tensor that is read may hold it.
"""

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from common.learning.weight_files import read
from tests.fuzz.mutation import mutate
from tests.fuzz.target import Attempt

if TYPE_CHECKING:
    Change = Callable[[h5py.File, random.Random], object]

TENSORS = {"conv2d/0": (3, 3, 1, 2), "conv2d/1": (2,), "dense/0": (8, 1), "dense/1": (1,)}
SECRET = 12345.678
SUFFIXES = (".h5", ".weights.h5", ".keras", ".npz")
HUGE = (2**31, 2**40, 2**59)


def begin(folder: Path) -> Attempt:
    """Make one sound file of every layout."""
    np.full(4, SECRET, np.float32).tofile(folder / "secret.raw")
    with h5py.File(folder / "secret.h5", "w") as file:
        file["secret"] = np.full(4, SECRET, np.float32)
    sound = {suffix: _sound(folder, suffix) for suffix in SUFFIXES}
    for suffix, data in sound.items():
        path = folder / f"sound{suffix}"
        path.write_bytes(data)
        assert len(read(path)) == len(TENSORS), suffix

    def attempt(draw: random.Random) -> None:
        suffix = draw.choice(SUFFIXES)
        path = folder / f"any{suffix}"
        kinds: Sequence[Callable[[], bytes]] = (
            lambda: mutate(sound[suffix], draw),
            lambda: mutate(sound[suffix], draw, most=40),
            lambda: _restructured(folder, suffix, draw),
            lambda: sound[draw.choice(SUFFIXES)],
        )
        path.write_bytes(draw.choices(kinds, (5, 1, 4, 0.2))[0]())
        for tensor in read(path).values():
            assert not (tensor == np.float32(SECRET)).any(), "it holds what lies in another file"

    return attempt


def _sound(folder: Path, suffix: str) -> bytes:
    if suffix == ".npz":
        return _npz({name: np.ones(shape, np.float32) for name, shape in TENSORS.items()})
    return _hdf5_based(folder, suffix, lambda _file, _draw: None, random.Random(0))


def _hdf5_based(folder: Path, suffix: str, change: "Change", draw: random.Random) -> bytes:
    """Write the layout of `suffix`, let `change` do what it does to the open file, and return the bytes."""
    path = folder / "new.h5"
    with h5py.File(path, "w") as file:
        _keras_2(file) if suffix == ".h5" else _keras_3(file)
        change(file, draw)
    data = path.read_bytes()
    return _keras_zip(data) if suffix == ".keras" else data


def _keras_3(file: h5py.File) -> None:
    for name, shape in TENSORS.items():
        layer, place = name.split("/")
        group = file.require_group(f"layers/{layer}/vars")
        group.attrs["name"] = layer
        group[place] = np.ones(shape, np.float32)


def _keras_2(file: h5py.File) -> None:
    top = file.require_group("model_weights")
    top.attrs["layer_names"] = [b"conv2d", b"dense"]
    for layer in ("conv2d", "dense"):
        names = [f"{layer}/{variable}:0" for variable in ("kernel", "bias")]
        group = top.require_group(layer)
        group.attrs["weight_names"] = [name.encode() for name in names]
        for place, name in enumerate(names):
            group[name] = np.ones(TENSORS[f"{layer}/{place}"], np.float32)


def _keras_zip(weights: bytes, **members: bytes) -> bytes:
    layers = [
        {"class_name": kind, "module": "keras.layers", "config": {"name": name}, "registered_name": None}
        for kind, name in (("Conv2D", "conv2d"), ("Dense", "dense"))
    ]
    config = {"class_name": "Sequential", "config": {"name": "sequential", "layers": layers}}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.8.0"}))
        archive.writestr("config.json", members.get("config", json.dumps(config).encode()))
        archive.writestr("model.weights.h5", weights)
    return out.getvalue()


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()


def _restructured(folder: Path, suffix: str, draw: random.Random) -> bytes:
    """Return a well-formed file that says something it should not."""
    if suffix == ".npz":
        return draw.choice((_npy_that_claims, _bomb, _odd_npz))(draw)
    if suffix == ".keras" and draw.random() < 0.4:
        return _odd_keras(folder, draw)
    return _hdf5_based(folder, suffix, draw.choice(CHANGES), draw)


def _npy_that_claims(draw: random.Random) -> bytes:
    """Return an .npz whose array is larger in its header than in its bytes, or of a type that runs code."""
    kind = draw.choice(("<f4", "<f8", "|O", "<U9", "|V8", "<c16", "<M8[s]", "[('a', '<f4')]"))
    shape = draw.choice(((draw.choice(HUGE),), (2**20, 2**20), (-1,), (), (0,), (8, 1)))
    header = (
        f"{{'descr': {kind if kind[0] == '[' else repr(kind)}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    )
    body = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * draw.randint(0, 64)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("dense/0.npy", mutate(body, draw) if draw.random() < 0.3 else body)
    return out.getvalue()


def _bomb(draw: random.Random) -> bytes:
    """Return an archive whose member unpacks to up to 64 MB from a few kB, or says that it does."""
    out, size = io.BytesIO(), draw.choice((2**20, 2**24, 2**26))
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size // 4},), }}".encode()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("dense/0.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * size)
    data = bytearray(out.getvalue())
    if draw.random() < 0.7:
        at = data.rindex(b"PK\x01\x02") + 24
        data[at : at + 4] = struct.pack("<I", draw.choice((0, 1, 2**32 - 2)))
    return bytes(data)


def _odd_npz(draw: random.Random) -> bytes:
    values = (np.array(["x"]), np.array([np.nan], np.float32), np.zeros(0, np.float32), np.array(1.0), np.array([1j]))
    names = ("dense/0", "../evil", "a" * 300, "", "\0", "é", "dense")
    return _npz({draw.choice(names): draw.choice(values) for _ in range(draw.randint(0, 3))})


def _odd_keras(folder: Path, draw: random.Random) -> bytes:
    weights = _hdf5_based(folder, ".weights.h5", lambda _file, _draw: None, draw)
    config: Sequence[bytes] = (
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"class_name": "Lambda", "config": {"function": "import os"}}',
        b'{"config": {"layers": 5}}',
        b'{"config": {"layers": [{"config": {"name": 7}}]}}',
        b"{" + b'"a":1,' * 100_000 + b'"b":2}',
        b"\xff\xfe",
    )
    return (
        mutate(_keras_zip(weights, config=draw.choice(config)), draw, most=1)
        if draw.random() < 0.3
        else _keras_zip(weights, config=draw.choice(config))
    )


def _dense(file: h5py.File) -> tuple[h5py.Group, str]:
    """Return where the kernel of the dense layer lies: its group and its name there."""
    group = file["model_weights/dense/dense" if "model_weights" in file else "layers/dense/vars"]
    return group, "kernel:0" if "kernel:0" in group else "0"


def _replace(make: Callable[[h5py.Group, str, random.Random], object]) -> "Change":
    def change(file: h5py.File, draw: random.Random) -> None:
        group, name = _dense(file)
        del group[name]
        make(group, name, draw)

    return change


def _external_storage(group: h5py.Group, name: str, _draw: random.Random) -> None:
    path = str(Path(group.file.filename).with_name("secret.raw"))
    group.create_dataset(name, (4,), np.float32, external=[(path, 0, 16)])


def _virtual(group: h5py.Group, name: str, _draw: random.Random) -> None:
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource(str(Path(group.file.filename).with_name("secret.h5")), "secret", (4,))
    group.create_virtual_dataset(name, layout)


def _external_link(group: h5py.Group, name: str, _draw: random.Random) -> None:
    group[name] = h5py.ExternalLink(str(Path(group.file.filename).with_name("secret.h5")), "/secret")


def _soft_link(group: h5py.Group, name: str, draw: random.Random) -> None:
    group[name] = h5py.SoftLink(draw.choice(("/", "/nothing", group.name, f"{group.name}/{name}")))


def _loop(group: h5py.Group, name: str, _draw: random.Random) -> None:
    group[name] = group.file["/"]


def _huge(group: h5py.Group, name: str, draw: random.Random) -> None:
    chunks = draw.choice((None, (1024,)))
    group.create_dataset(name, (draw.choice(HUGE),), np.float32, chunks=chunks, compression="gzip" if chunks else None)


def _odd_type(group: h5py.Group, name: str, draw: random.Random) -> None:
    kinds: Sequence[object] = (
        "S5",
        np.complex64,
        np.bool_,
        h5py.string_dtype(),
        h5py.vlen_dtype(np.float32),
        h5py.ref_dtype,
        np.dtype([("a", np.float32)]),
        np.dtype(("<f4", (2,))),
        np.float16,
        ">f8",
    )
    group.create_dataset(name, draw.choice(((4,), (8, 1), ())), draw.choice(kinds))


def _deep(group: h5py.Group, name: str, draw: random.Random) -> None:
    for _ in range(draw.choice((10, 500, 2000))):
        group = group.create_group("layers")
    group[name] = np.ones(2, np.float32)


def _wide(file: h5py.File, draw: random.Random) -> None:
    for number in range(draw.choice((100, 3000))):
        file.create_group(f"layers/layer_{number}/vars")


def _odd_names(file: h5py.File, draw: random.Random) -> None:
    group = file["model_weights"] if "model_weights" in file else file["layers/dense/vars"]
    names: Sequence[object] = (
        "",
        5,
        np.nan,
        [b"\xff"],
        ["nothing"],
        "../..",
        "a" * 5000,
        np.zeros((3, 3)),
        h5py.Empty("f"),
    )
    group.attrs[draw.choice(("layer_names", "layer_names0", "weight_names", "name"))] = draw.choice(names)


CHANGES: "Sequence[Change]" = (
    *map(_replace, (_external_storage, _virtual, _external_link, _soft_link, _loop, _huge, _odd_type, _deep)),
    _wide,
    _odd_names,
)
