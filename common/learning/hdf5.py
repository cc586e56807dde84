"""What an HDF5 file holds, without following anything that leads out of it. The only importer of h5py.

A file by HDF5 can name other files of the machine: as external storage of a dataset, as a source of a virtual
dataset, as an external link. None of them is followed, and a file that has one is refused, as is one with soft
links. The library loops or crashes on damaged files, so it runs in a process of its own: see `file_child`.
"""

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from h5py import Dataset, File, Group, h5a, h5d, h5f, h5g, h5l, h5o, h5t, h5z

from common.errors import DataError
from common.learning.archives import too_large
from common.weights import DTYPES, MAX_TENSORS, Tensor

LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "an external link, which names another file"}
FILTERS = frozenset({h5z.FILTER_DEFLATE, h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32, h5z.FILTER_LZF})
LAYOUTS = frozenset({h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED})
TEXTS = ("layer_names", "weight_names", "model_config", "name")
"""Attributes of groups that name tensors; Keras cuts a long list into attributes that end in 0, 1 and so on."""
NO_WEIGHTS = frozenset({"optimizer", "optimizer_weights", "seed_generator", "compile_metrics"})
"""Groups of a file whose numbers belong to a training, not to the model."""
MAX_OBJECTS = 100_000
MAX_DEPTH = 64
MAX_DIMENSIONS = 8


class Contents(msgspec.Struct):
    """The groups of a file by path, "" for the root, with their attributes; its datasets by path."""

    groups: dict[str, dict[str, list[str]]]
    datasets: dict[str, Any]


def open_image(content: bytes) -> Any:
    """Open a file that lies in memory."""
    return File(h5f.open_file_image(content))


def open_path(path: str, mode: str = "r") -> Any:
    """Open a file of the disk."""
    return File(path, mode)


def walk(file: Any, allowed: int) -> Contents:
    """Find everything in `file`, whose weights may take `allowed` bytes. Raises DataError for what is refused."""
    contents, seen, count, total = Contents({}, {}), set(), 0, 0
    pending = [("", h5g.open(file.id, b"/"))]
    while pending:
        path, found = pending.pop()
        count += 1
        if count > MAX_OBJECTS or path.count("/") > MAX_DEPTH:
            raise DataError(f"it nests deeper than {MAX_DEPTH} groups or holds more than {MAX_OBJECTS:,} objects")
        if isinstance(found, h5d.DatasetID):
            _check_storage(path, found)
            if NO_WEIGHTS.isdisjoint(path.split("/")):
                total += _check_numbers(path, found)
                contents.datasets[path] = Dataset(found)
        elif isinstance(found, h5g.GroupID):
            address = h5o.get_info(found).addr
            if address in seen:
                raise DataError(f"the group {path!r} stands in it twice")
            seen.add(address)
            contents.groups[path] = _texts(found)
            pending += reversed(list(_children(path, found)))
        if total > allowed or len(contents.datasets) > MAX_TENSORS:
            over = f"it holds more than {MAX_TENSORS:,} tensors"
            raise DataError(too_large(total, allowed) if total > allowed else over)
    return contents


def values(dataset: Any) -> Tensor:
    """Read the numbers of a dataset that `walk` has found."""
    return np.asarray(dataset[()])


def _children(path: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name in islice(group, MAX_OBJECTS):
        child = f"{path}/{name.decode()}".lstrip("/")
        if (kind := group.links.get_info(name).type) != h5l.TYPE_HARD:
            raise DataError(
                f"{child!r} in it is {LINKS.get(kind, 'a link of an unknown kind')}; such files are refused"
            )
        yield child, h5o.open(group, name)


def _check_storage(path: str, dataset: Any) -> None:
    """See that a dataset's numbers lie in the file itself and are packed as Keras and h5py do."""
    created = dataset.get_create_plist()
    layout = created.get_layout()
    if layout not in LAYOUTS:
        raise DataError(f"{path!r} in it is a virtual dataset, which takes its numbers from other files: refused")
    if created.get_external_count():
        raise DataError(f"{path!r} in it has its numbers in another file: refused")
    for place in range(created.get_nfilters()):
        if created.get_filter(place)[0] not in FILTERS:
            raise DataError(f"{path!r} in it is packed by a filter that is not read here")


def _check_numbers(path: str, dataset: Any) -> int:
    """Return how many bytes a dataset's numbers take; raises DataError unless they are plain numbers."""
    kind = dataset.get_type()
    if kind.get_class() not in {h5t.INTEGER, h5t.FLOAT} or kind.dtype.name not in DTYPES:
        raise DataError(f"{path!r} in it does not hold plain numbers; allowed are {', '.join(DTYPES)}")
    shape = dataset.get_space().get_simple_extent_dims()
    if shape is None or len(shape) > MAX_DIMENSIONS:
        raise DataError(f"{path!r} in it has no shape, or more than {MAX_DIMENSIONS} dimensions")
    return int(math.prod(shape)) * int(kind.dtype.itemsize)


def _texts(group: Any) -> dict[str, list[str]]:
    """Read the attributes of a group that name tensors: texts, or lists of them."""
    found = {}
    for place in range(h5a.get_num_attrs(group)):
        name = h5a.open(group, index=place).name.decode(errors="replace")
        if name.rstrip("0123456789") in TEXTS:
            value = np.ravel(Group(group).attrs[name])
            found[name] = [text.decode() if isinstance(text, bytes) else str(text) for text in value.tolist()]
    return found
