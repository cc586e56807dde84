"""The parent's side of reading a weight file: opens it, has `file_child` read it, and checks what comes back."""

import atexit
import contextlib
import math
import os
import signal
import socket
import stat
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from common.errors import ConfigError, DataError, WorkError
from common.learning.file_child import OK, Answer, Described, Request
from common.learning.file_kinds import LFS
from common.learning.outline import Layer
from common.python import child_command
from common.weights import DTYPES, Tensor

MAX_BYTES = 2 << 30
"""Of the weights of one file."""
MAX_ANSWER = 64 << 20
HEAD = 2048
DAMAGED = "cannot read the weights: it is damaged"
SAYS_OTHERWISE = (
    (LFS, "it is a Git LFS pointer and not the file itself; fetch that with: git lfs pull"),
    (b"\x80", "it is a pickle, as PyTorch writes, which can hold code and is not read here; save the weights as .npz"),
    (b"\x93NUMPY", "it holds one array without a name; save all by name with numpy.savez"),
    (b"\x1f\x8b", "it is packed by gzip; unpack it first"),
    (b"PK\x05\x06", "it is an empty archive and holds no weights"),
    (b"{", "it is JSON, which describes a model at most; name the file of its weights"),
)
"""First bytes of what people name in place of a weight file, and what to say of it."""


@dataclass(frozen=True)
class Raw:
    """What a file holds, before its tensors have names: see `file_child.Answer`; tensors by their paths in it."""

    kind: str
    groups: dict[str, dict[str, list[str]]]
    tensors: dict[str, Tensor]
    network: Layer | None


def read_raw(path: Path) -> Raw:
    """Read a file whose first bytes say HDF5 or ZIP. Raises DataError that names the file; ConfigError without h5py.

    Takes memory in proportion to the file's size, and seconds.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        _check_kind(path, file.read(HEAD))
        allowed = allowance(size)
        try:
            return _ask(Request("read", size, allowed), [file.fileno()], allowed)
        except (DataError, ConfigError) as error:
            raise type(error)(f"{path}: {error}") from error


def replace(draft: Path, numbers: Path) -> None:
    """Put the arrays of `numbers`, an `.npz` by paths in the HDF5 file `draft`, into that file. Raises DataError."""
    size = draft.stat().st_size
    with draft.open("r+b") as file, numbers.open("rb") as given:
        _ask(Request("replace", size, allowance(size)), [file.fileno(), given.fileno()], 0)


def allowance(size: int) -> int:
    """Bytes that the weights in a file of `size` bytes may take: what compression can have saved is bounded."""
    return min((64 << 20) + 20 * size, MAX_BYTES)


# ---- what a file is -------------------------------------------------------------------------


def _opened(path: Path) -> IO[bytes]:
    try:
        if path.is_dir():
            raise DataError(f"{path}: it is a folder, such as a SavedModel; name a file that holds weights")
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")  # a named pipe must not wait for a writer
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: cannot read the weights: {reason}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DataError(f"{path}: it is no plain file")
    return file


def _check_kind(path: Path, head: bytes) -> None:
    """Raise DataError that says what a file is where it is neither HDF5 nor ZIP."""
    if head.startswith(b"PK\x03\x04") or any(head[at : at + 8] == b"\x89HDF\r\n\x1a\n" for at in (0, 512, 1024)):
        return
    if not head:
        raise DataError(f"{path}: it is empty")
    for start, said in SAYS_OTHERWISE:
        if head.startswith(start):
            raise DataError(f"{path}: {said}")
    if head[4:8] == b"TFL3":
        raise DataError(
            f"{path}: it is a TFLite model, whose weights are not read; name the .keras or .h5 it came from"
        )
    if head.lstrip()[:1] == b"<":
        raise DataError(f"{path}: it is a web page or XML and no weights; download the file itself")
    if head[8:10] == b'{"':
        raise DataError(f"{path}: it is a file of safetensors, which is not read here; save the weights as .npz")
    raise DataError(f"{path}: its first bytes are those of no weight file: .weights.h5, .h5, .keras and .npz are read")


# ---- the other process ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Helper:
    """The process that reads, and the socket to it. A process has one; a fork of it needs another."""

    process: subprocess.Popen[bytes]
    link: socket.socket
    owner: int

    def close(self) -> None:
        """End the process: it stops once nobody is at the other end."""
        self.link.close()
        if self.owner == os.getpid():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)


_lock = threading.Lock()
_helpers: list[_Helper] = []


def _helper() -> _Helper:
    if _helpers and _helpers[0].owner == os.getpid() and _helpers[0].process.poll() is None:
        return _helpers[0]
    _forget()
    ours, theirs = socket.socketpair()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HDF5_")}
    environment = {**kept, "HDF5_PLUGIN_PRELOAD": "::", "HDF5_USE_FILE_LOCKING": "FALSE", "OPENBLAS_NUM_THREADS": "1"}
    command = child_command("common.learning.file_child")
    try:
        with theirs:
            process = subprocess.Popen(
                command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment, start_new_session=True
            )
    except OSError as error:
        raise WorkError(f"cannot start the process that reads weight files: {error.strerror}") from error
    _helpers.append(_Helper(process, ours, os.getpid()))
    return _helpers[0]


@atexit.register
def _forget() -> None:
    while _helpers:
        _helpers.pop().close()


def _ask(request: Request, files: list[int], allowed: int) -> Raw:
    with _lock:
        helper = _helper()
        found: Raw | DataError | ConfigError
        try:
            result, other = os.pipe()
            with os.fdopen(result, "rb") as answers:
                try:
                    socket.send_fds(helper.link, [msgspec.json.encode(request)], [*files, other])
                finally:
                    os.close(other)
                try:
                    found = _receive(answers, allowed)
                except (DataError, ConfigError) as error:
                    found = error
            status = os.waitstatus_to_exitcode(int.from_bytes(helper.link.recv(4), "big"))
        except BaseException:  # what was not read to its end would be taken for the next answer
            _forget()
            raise
    if status != 0:
        raise DataError(_ending(status))
    if not isinstance(found, Raw):
        raise found
    return found


def _ending(status: int) -> str:
    if -status in {signal.SIGPROF, signal.SIGALRM, signal.SIGKILL}:
        return f"{DAMAGED}, so that reading it does not end"
    return f"{DAMAGED}, so that the library that reads it crashes"


def _receive(answers: IO[bytes], allowed: int) -> Raw:
    """Read an answer and its numbers. Raises what is to be told of the file."""
    length = int.from_bytes(answers.read(8), "big")
    if length == 0:  # numbers were replaced
        return Raw("", {}, {}, None)
    try:
        answer = msgspec.msgpack.decode(answers.read(length) if length <= MAX_ANSWER else b"", type=Answer)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DataError(DAMAGED) from error
    if answer.refusal:
        kind = ConfigError if answer.exit_code == ConfigError.exit_code else DataError
        raise kind(answer.refusal)
    tensors: dict[str, Tensor] = {}
    for described in answer.tensors:
        tensors[described.path] = tensor = _receive_tensor(answers, described, allowed)
        allowed -= tensor.nbytes
    return Raw(answer.kind, answer.groups, tensors, answer.network)


def _receive_tensor(answers: IO[bytes], described: Described, allowed: int) -> Tensor:
    if described.dtype not in DTYPES or not 0 <= _nbytes(described) <= allowed:
        raise DataError(DAMAGED)
    if answers.read(1) != OK:
        raise DataError(f"cannot read the weights: {answers.read(1000).decode(errors='replace') or 'it is damaged'}")
    content = answers.read(_nbytes(described))
    if len(content) != _nbytes(described):
        raise DataError(DAMAGED)
    little = np.frombuffer(content, np.dtype(described.dtype).newbyteorder("<"))
    return little.reshape(described.shape).astype(described.dtype)


def _nbytes(described: Described) -> int:
    if min(described.shape, default=1) < 0:
        return -1
    return math.prod(described.shape) * np.dtype(described.dtype).itemsize
