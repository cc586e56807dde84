"""Reads weight files for another process, each in a process of its own with limits on time, memory and files.

Started once (`python -m common.learning.file_child`) with a socket as its standard input, it forks for every
file, so that a file which crashes or stops a library costs nothing but that process. See `file_reader`.
"""

import contextlib
import os
import resource
import signal
import socket
import sys
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import msgspec

from common.errors import ConfigError, DataError, FedpiError
from common.learning import archives
from common.learning.outline import Layer, read_outline
from common.weights import Tensor

try:
    from common.learning import hdf5
except ImportError:  # a machine that reads .npz only
    hdf5 = None  # type: ignore[assignment]  # what is asked of it then is refused in one sentence

INSIDE_KERAS = "model.weights.h5"
CONFIG = "config.json"
MAX_CONFIG = 16 << 20
ROOM = 64 << 20
"""Bytes of memory that a process takes besides what it reads."""
CPU_SECONDS = 0.3
"""For any file; each megabyte of it gives a second more, in which the slowest Pi reads 400 small tensors."""
OK, REFUSED = b"\x00", b"\x01"


class Request(msgspec.Struct, frozen=True):
    """What to do with the first file that comes with it: `read` it, or `replace` numbers in it by the second's."""

    task: str
    size: int
    allowed: int
    """Bytes that its weights may take."""


class Described(msgspec.Struct, frozen=True):
    """One tensor as it follows the answer, little-endian in C order."""

    path: str
    shape: tuple[int, ...]
    dtype: str


class Answer(msgspec.Struct, frozen=True):
    """What a file holds; the numbers follow, tensor by tensor, each behind one byte that says whether it was read."""

    kind: str = ""
    groups: dict[str, dict[str, list[str]]] = {}
    tensors: tuple[Described, ...] = ()
    network: Layer | None = None
    refusal: str = ""
    exit_code: int = 0


def serve(link: socket.socket) -> None:
    """Answer requests until the other side is gone."""
    while True:
        asked, files, _, _ = socket.recv_fds(link, 4096, 3)
        if not asked:
            return
        child = os.fork()
        if child == 0:
            _work(msgspec.json.decode(asked, type=Request), files)
        for file in files:
            os.close(file)
        link.sendall(os.waitpid(child, 0)[1].to_bytes(4, "big"))


def _work(request: Request, files: list[int]) -> None:
    """Do one task and end this process."""
    try:
        with os.fdopen(files[-1], "wb") as out:
            try:
                _limit(request)
                _do(request, files, out)
            except BaseException as error:  # noqa: BLE001 - whatever a damaged file makes of a library is its fault
                code = error.exit_code if isinstance(error, FedpiError) else DataError.exit_code
                said = str(error) if isinstance(error, FedpiError) else f"cannot read the weights: {_reason(error)}"
                _send(out, Answer(refusal=said, exit_code=code))
    finally:
        os._exit(0)


def _do(request: Request, files: list[int], out: IO[bytes]) -> None:
    with open(files[0], "rb", closefd=False) as file:
        if request.task == "replace":
            _replace(request, file, files[1])
        else:
            _read(request, file, out)


def _limit(request: Request) -> None:
    """Take away what no file needs: more memory and time than its size calls for."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        now = int(file.read().split()[0]) * resource.getpagesize()
    memory = now + ROOM + 2 * request.allowed
    seconds = CPU_SECONDS + request.size / 1e6
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.alarm(60 + int(60 * seconds))  # for a disk that does not answer


def _forbid_files() -> None:
    """From here on this process opens no file, whatever the one that it reads names."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def _read(request: Request, file: IO[bytes], out: IO[bytes]) -> None:
    file.seek(0)
    if file.read(4) == b"PK\x03\x04":
        file.seek(0)
        archive = archives.open_archive(file, request.allowed + MAX_CONFIG)
        _forbid_files()
        _read_archive(request, archive, out)
        return
    opened = _hdf5().open_path(f"/dev/fd/{file.fileno()}")
    _forbid_files()
    _tell(out, "hdf5", _hdf5().walk(opened, request.allowed))


def _read_archive(request: Request, archive: zipfile.ZipFile, out: IO[bytes]) -> None:
    names = archive.namelist()
    if INSIDE_KERAS in names:
        config = archives.read_member(archive, CONFIG, MAX_CONFIG) if CONFIG in names else None
        content = archives.read_member(archive, INSIDE_KERAS, request.allowed)
        _tell(out, "keras", _hdf5().walk(_hdf5().open_image(content), request.allowed), config)
    elif any(name.endswith("data.pkl") for name in names):
        raise DataError("it is a model of PyTorch, which is not read here; save its weights as .npz")
    elif "model.weights.json" in names:
        raise DataError("its weights are cut into several files, which is not read here; save them as one")
    else:
        found = dict(archives.arrays(archive))
        tensors = tuple(Described(name, value.shape, value.dtype.name) for name, value in found.items())
        _send(out, Answer(kind="npz", tensors=tensors))
        _send_values(out, iter(found.values()))


def _hdf5() -> Any:
    if hdf5 is None:
        raise ConfigError("reading weights of Keras needs h5py: install fedpi[tools] or fedpi[learning]")
    return hdf5


def _tell(out: IO[bytes], kind: str, found: Any, config: str | bytes | None = None) -> None:
    described = tuple(Described(path, data.shape, data.dtype.name) for path, data in found.datasets.items())
    config = config or next(iter(found.groups[""].pop("model_config", [])), None)
    network = read_outline(config) if config else None
    _send(out, Answer(kind=kind, groups=found.groups, tensors=described, network=network))
    _send_values(out, map(_hdf5().values, found.datasets.values()))


def _send(out: IO[bytes], answer: Answer) -> None:
    """Send an answer, or in its place, where one was sent already, the refusal of the tensor that is due."""
    content = msgspec.msgpack.encode(answer)
    out.write(len(content).to_bytes(8, "big") + content)
    out.flush()


def _send_values(out: IO[bytes], values: Iterator[Tensor]) -> None:
    import numpy as np

    while True:
        try:
            value = next(values)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001 - as above
            out.write(REFUSED + _reason(error).encode())
            return
        out.write(OK + np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes())


def _replace(request: Request, file: IO[bytes], numbers: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (request.size + ROOM,) * 2)
    opened = _hdf5().open_path(f"/dev/fd/{file.fileno()}", "r+")
    with os.fdopen(numbers, "rb") as given, archives.open_archive(given, request.allowed + ROOM) as archive:
        _forbid_files()
        found = _hdf5().walk(opened, request.allowed).datasets
        for path, value in archives.arrays(archive):
            found[path][...] = value
    opened.close()


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "it takes more memory than a file of its size may"
    said = getattr(error, "strerror", None) or str(error).strip("'") or type(error).__name__
    return said.strip().partition("\n")[0][:300]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=sys.stdin.fileno()) as _link, contextlib.suppress(ConnectionError):
        serve(_link)  # until the other side is gone, which may be in the middle of a file
