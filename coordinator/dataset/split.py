"""Making a federation out of one folder: label CSVs for the coordinator and every site.

Near copies stay together. Within each label, groups are taken in the order of the SHA-256 of seed and
name, and each goes to the part that is furthest behind its share (the Sainte-Laguë method, with images
as votes). That depends on nothing but names, seed and groups, so any machine makes the same split.
Large groups tend to fall to large parts, which leaves few copies among the unseen images.
"""

import contextlib
import hashlib
import multiprocessing
import os
import unicodedata
from collections import Counter
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Literal

import msgspec

from common.config import Config
from common.errors import DataError, UsageError, WorkError
from common.files import write_atomic
from common.learning.decoding import open_image, read_image_file
from common.learning.folders import Labelled, find_labelled
from common.learning.label_csv import write_label_csv
from common.names import name_fault
from coordinator.dataset.folders import COORDINATOR, write_folders
from coordinator.dataset.near_copies import Fingerprint, Tell, distances, fingerprint, join
from coordinator.dataset.partition import UNSEEN, Shares, Skew, label_shares

LONGEST = 1024
"""Longer side in pixels of the images that are compared; larger ones are resized to it."""
DRAWS = 1000
"""A skew is drawn again where a part would lack a label."""
MANY = 200
"""Files above which starting processes to look at them costs less than it saves."""
MOST_PROCESSES = 4
"""That look at files: each decodes in up to 150 MB."""
CHUNK = 8
"""Files that a process is given at a time."""


class SplitOptions(Config, frozen=True):
    """How to split: `shares` are the coordinator's and then one for each of `sites`, 1 together.

    `unseen_share` of every site's images is held back from training; `label_names` are the folders,
    the negative label first.
    """

    shares: tuple[float, ...] = (0.6, 0.2, 0.2)
    unseen_share: float = 0.4
    seed: int = 0
    sites: tuple[str, ...] = ("rpi1", "rpi2")
    label_names: tuple[str, str] = ("no", "yes")
    skew: Skew = "none"
    alpha: float = 0.5
    """Of the skew's Dirichlet distribution: the smaller, the further the sites are apart."""
    keep_twins: bool = True
    """Whether near copies stay in one part. A random split that parts them flatters every figure."""
    layout: Literal["csv", "folders"] = "csv"
    """`csv`: CSVs that name the files where they are; `folders`: copies as well (see `folders`)."""


class Part(msgspec.Struct, frozen=True):
    """One CSV of the federation: its name without `.csv`, and what is in it."""

    name: str
    images: int
    labels: dict[str, int]
    groups: int
    """Different images among them, near copies counted once."""


class SplitReport(msgspec.Struct, frozen=True):
    """What was found in the folder, and which part got how much of it."""

    seed: int
    files: int
    """Files that are images."""
    exact_copies: int
    """Files that are, byte for byte, a copy of another one."""
    near_copies: int
    """Further files that are near copies of another one."""
    groups: int
    """Different images, near copies counted once."""
    largest_group: int
    skipped: tuple[str, ...]
    """A sentence for each file that is no image."""
    contradictions: tuple[tuple[str, ...], ...]
    """Groups of near copies with both labels: label noise, or a wrong join."""
    twins: tuple[tuple[str, ...], ...]
    """The names of all groups of more than one file."""
    parts: tuple[Part, ...]


class Group(msgspec.Struct, frozen=True):
    """Near copies of one image, sorted by name, and the label that most of them have."""

    items: tuple[Labelled, ...]
    label: int


def split(images: Path, out: Path, options: SplitOptions, tell: Tell | None = None) -> SplitReport:
    """Write `coordinator.csv`, `SITE.csv`, `SITE_unseen.csv` and `split.json` into `out`, or the layout `folders`.

    The CSVs name files relative to `images`, a folder with one folder a label. Raises UsageError for
    options or a folder that cannot be, DataError where a part would lack a label, WorkError where `out`
    cannot be written. `tell` hears how many images are read.
    """
    shares = _part_shares(options)
    if not images.is_dir():
        raise UsageError(f"{images}: there is no such folder; correct the path")
    try:
        found = find_labelled(images, options.label_names)
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}; correct the path or its rights") from error
    groups, exact_copies, skipped = find_groups(found.items, tell)
    parts = deal(groups, shares, options)
    report = SplitReport(
        seed=options.seed,
        files=sum(len(group.items) for group in groups),
        exact_copies=exact_copies,
        near_copies=sum(len(group.items) - 1 for group in groups) - exact_copies,
        groups=len(groups),
        largest_group=max((len(group.items) for group in groups), default=0),
        skipped=(*found.skipped, *skipped),
        contradictions=_names(group for group in groups if len({item.label for item in group.items}) > 1),
        twins=_names(group for group in groups if len(group.items) > 1),
        parts=tuple(_describe(name, found, options.label_names) for name, found in parts.items()),
    )
    _check_parts(images, report)
    items_of = {name: sorted((i for g in found for i in g.items), key=_name_of) for name, found in parts.items()}
    if options.layout == "folders":
        write_folders(out, items_of, options.label_names)
    else:
        for name, found_items in items_of.items():
            write_label_csv(out / f"{name}.csv", [(i.name, options.label_names[i.label]) for i in found_items])
    write_atomic(out / "split.json", msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return report


def _part_shares(options: SplitOptions) -> dict[str, float]:
    """The share of each part in all images; a part without a share is left out."""
    names = (COORDINATOR, *options.sites)
    if len(options.shares) != len(names):
        raise UsageError(f"shares: {len(options.shares)} are given; give {len(names)}, one each for {', '.join(names)}")
    if len(set(names)) != len(names):
        raise UsageError(f"sites: {', '.join(options.sites)}: name each site once, and none {COORDINATOR!r}")
    for site in options.sites:
        if fault := name_fault(site):
            raise UsageError(f"sites: {fault}")
    if min(options.shares) < 0 or abs(sum(options.shares) - 1) > 1e-6:
        raise UsageError(f"shares: {options.shares} must not be negative, and must add up to 1")
    if not 0 <= options.unseen_share < 1:
        raise UsageError(f"unseen_share: {options.unseen_share} must be at least 0 and below 1")
    if not 0.001 <= options.alpha <= 1e6:
        raise UsageError(f"alpha: {options.alpha} must be from 0.001 to 1e6")
    shares = {COORDINATOR: options.shares[0]}
    for site, share in zip(options.sites, options.shares[1:], strict=True):
        shares[site] = share * (1 - options.unseen_share)
        shares[site + UNSEEN] = share * options.unseen_share
    return {name: share for name, share in shares.items() if share > 0}


def find_groups(items: Sequence[Labelled], tell: Tell | None = None) -> tuple[list[Group], int, list[str]]:
    """Group near copies; also the number of exact copies, and a sentence for each file that is no image."""
    same: dict[bytes, list[Labelled]] = {}
    fingerprints: dict[bytes, Fingerprint] = {}
    skipped = []
    with contextlib.closing(_looked_at(items)) as found:
        for number, (item, looked) in enumerate(zip(items, found, strict=True)):
            if tell is not None:
                tell(f"{number} of {len(items)} images read")
            if isinstance(looked, str):
                skipped.append(looked)
                continue
            digest, fingerprints[digest] = looked
            same.setdefault(digest, []).append(item)
    if not same:
        return [], 0, skipped
    copies = list(same.values())
    joined = join(distances(list(fingerprints.values()), tell))
    groups = [_group([item for index in indices for item in copies[index]]) for indices in joined]
    return groups, sum(len(found) - 1 for found in copies), skipped


def _looked_at(items: Sequence[Labelled]) -> Generator[tuple[bytes, Fingerprint] | str, None, None]:
    """Look at every file, in order; at many of them by a process a core. Raises WorkError if one of these ends."""
    if len(items) < MANY:
        yield from map(_look_at, items)
        return
    pool = ProcessPoolExecutor(min(os.cpu_count() or 1, MOST_PROCESSES), multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(_look_at, items, chunksize=CHUNK)
    except BrokenProcessPool as error:
        raise WorkError("a process that read the images ended by itself; is there too little memory?") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _look_at(item: Labelled) -> tuple[bytes, Fingerprint] | str:
    """Return a file's digest and its image's fingerprint, or a sentence why it is left out."""
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in item.name):
        return f"{item.name!a}: the name holds control characters or is not UTF-8; rename the file"
    try:
        data = read_image_file(item.path)
        return hashlib.sha256(data).digest(), fingerprint(open_image(data, LONGEST))
    except DataError as error:
        return f"{item.name}: {error}"


def _group(items: list[Labelled]) -> Group:
    positive = sum(item.label for item in items)
    return Group(tuple(sorted(items, key=lambda item: item.name)), int(2 * positive > len(items)))


def deal(groups: Sequence[Group], even: Shares, options: SplitOptions) -> dict[str, list[Group]]:
    """Deal the groups out by the shares that the skew gives, in which no part lacks a label if that can be."""
    if not options.keep_twins:
        groups = [Group((item,), item.label) for group in groups for item in group.items]
    sites = [site for site in options.sites if site in even or site + UNSEEN in even]
    seed = options.seed * DRAWS
    for number in range(seed, seed + (1 if options.skew == "none" else DRAWS)):
        parts = _assign(groups, label_shares(even, sites, options.skew, (number, options.alpha)), options.seed)
        if all({group.label for group in found} == {0, 1} for found in parts.values()):
            break
    return parts


def _assign(groups: Sequence[Group], shares: Sequence[Mapping[str, float]], seed: int) -> dict[str, list[Group]]:
    """Deal the groups of each label out to the parts."""
    parts: dict[str, list[Group]] = {name: [] for name in shares[0]}
    for label, wanted in enumerate(shares):
        dealt = dict.fromkeys(wanted, 0)
        for group in sorted((group for group in groups if group.label == label), key=lambda g: _rank(g, seed)):
            size = len(group.items)
            behind = min(wanted, key=lambda name: (dealt[name] + size / 2) / max(wanted[name], 1e-12))
            dealt[behind] += size
            parts[behind].append(group)
    return parts


def _name_of(item: Labelled) -> str:
    return item.name


def _rank(group: Group, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{group.items[0].name}".encode()).digest()


def _describe(name: str, groups: Sequence[Group], label_names: Sequence[str]) -> Part:
    found = Counter(label_names[item.label] for group in groups for item in group.items)
    return Part(name, found.total(), {label: found[label] for label in label_names}, len(groups))


def _names(groups: Iterable[Group]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(item.name for item in group.items) for group in groups)


def _check_parts(images: Path, report: SplitReport) -> None:
    for part in report.parts:
        for label, count in part.labels.items():
            if count == 0:
                problem = f" ({len(report.skipped)} files skipped)" if report.skipped else ""
                raise DataError(
                    f"{images}: {report.groups} different images{problem} leave none labelled {label!r} "
                    f"for {part.name}; add images, or have fewer sites or larger shares"
                )
