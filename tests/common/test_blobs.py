"""Blobs on disk."""

import gc
import os
from pathlib import Path

import pytest

from common.blobs import BlobStore
from common.chunks import decode_head, full, layout_of
from common.errors import DataError, PeerError, WorkError
from common.messages import Ref
from common.verified import read_verified
from common.weights import TensorSpec

CHUNK = 4096
BODY = bytes(range(256)) * 16 + bytes(CHUNK) + b"the last chunk is short"
SPEC = (TensorSpec("all", (len(BODY),), "uint8"),)


def store_of(tmp_path: Path, name: str = "store") -> BlobStore:
    return BlobStore(tmp_path / name)


def add(blobs: BlobStore, tmp_path: Path, body: bytes = BODY) -> Ref:
    draft = tmp_path / "draft"
    draft.write_bytes(body)
    return blobs.add(draft, SPEC if body == BODY else None, CHUNK)


def open_files() -> int:
    gc.collect()  # what other tests left open is not ours to count
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count is all


def begin(blobs: BlobStore, source: BlobStore, ref: Ref, sources: tuple[str, ...] = ()) -> int:
    """Prepare the part of a blob that `source` has."""
    packed = source.packed_head(ref.id)
    return blobs.prepare(ref, decode_head(packed, ref), packed, sources)


def test_a_file_that_was_added_is_read_back_chunk_by_chunk(tmp_path: Path) -> None:
    blobs = store_of(tmp_path)
    ref = add(blobs, tmp_path)
    layout = layout_of(ref)
    stream = b"".join(blobs.read(ref, layout, index) for index in range(layout.total))
    assert stream == blobs.packed_head(ref.id) + BODY
    assert blobs.has(ref.id)
    assert blobs.complete() == [ref.id]
    assert blobs.ref(ref.id) == ref
    assert blobs.head(ref).spec == SPEC
    assert not (tmp_path / "draft").exists()


@pytest.mark.parametrize("cut", [1, 1000, CHUNK, 10_000])
def test_blocks_of_any_size_give_the_same_blob_as_the_file(tmp_path: Path, cut: int) -> None:
    blobs = store_of(tmp_path)
    blocks = (BODY[start : start + cut] for start in range(0, len(BODY), cut))
    assert blobs.add_blocks(blocks, SPEC, CHUNK) == add(store_of(tmp_path, "other"), tmp_path)
    (only,) = blobs.complete()
    assert read_verified(blobs.body(only)) == BODY


def test_an_empty_blob(tmp_path: Path) -> None:
    blobs = store_of(tmp_path)
    ref = add(blobs, tmp_path, b"")
    assert read_verified(blobs.body(ref.id)) == b""
    assert begin(store_of(tmp_path, "other"), blobs, ref) == full(0)


def test_zeros_and_chunks_of_other_blobs_need_not_travel(tmp_path: Path) -> None:
    source, target = store_of(tmp_path), store_of(tmp_path, "target")
    old = add(target, tmp_path, BODY[:CHUNK] + b"x" * CHUNK)
    new = add(source, tmp_path)
    assert begin(target, source, new, (old.id,)) == 0b011
    assert target.part(new.id).read_bytes()[: 2 * CHUNK] == BODY[: 2 * CHUNK]


def test_a_source_that_is_damaged_or_gone_only_costs_traffic(tmp_path: Path) -> None:
    source, target = store_of(tmp_path), store_of(tmp_path, "target")
    old, gone = add(target, tmp_path, BODY[:CHUNK]), "0" * 64
    new = add(source, tmp_path)
    target.body(old.id).write_bytes(b"y" * CHUNK)
    assert begin(target, source, new, (gone, old.id)) == 0b010
    target.head_path(old.id).write_bytes(b"no head")
    target.part(new.id).unlink()
    assert begin(store_of(tmp_path, "target"), source, new, (gone, old.id)) == 0b010


def test_a_finished_blob_is_complete(tmp_path: Path) -> None:
    source, target = store_of(tmp_path), store_of(tmp_path, "target")
    ref = add(source, tmp_path)
    begin(target, source, ref)
    for offset in (0, 2 * CHUNK):
        target.write(ref, offset, BODY[offset : offset + CHUNK])
    assert not target.has(ref.id)
    target.finish(ref)
    assert target.has(ref.id)
    assert target.is_intact(ref.id)
    assert read_verified(target.body(ref.id)) == BODY


@pytest.mark.parametrize("where", ["body", "head", "shorter", "longer"])
def test_a_blob_that_met_a_power_cut_is_found_out(tmp_path: Path, where: str) -> None:
    blobs = store_of(tmp_path)
    ref = add(blobs, tmp_path)
    body = blobs.body(ref.id)
    match where:
        case "body":
            body.write_bytes(b"x" + BODY[1:])
        case "head":
            blobs.head_path(ref.id).write_bytes(bytes(100))
        case "shorter":
            body.write_bytes(BODY[:-1])
        case "longer":
            body.write_bytes(BODY + b"x")
    with pytest.raises(DataError, match=ref.id):
        read_verified(body)
    again = store_of(tmp_path)
    again.recover()
    assert not again.has(ref.id)
    assert again.part(ref.id).exists()


def test_a_head_of_another_blob_is_found_out(tmp_path: Path) -> None:
    blobs = store_of(tmp_path)
    ref, other = add(blobs, tmp_path), add(blobs, tmp_path, b"other")
    blobs.head_path(ref.id).write_bytes(blobs.packed_head(other.id))
    assert not blobs.is_intact(ref.id)
    with pytest.raises(PeerError):
        blobs.head(ref)


def test_a_blob_that_is_not_here_is_not_intact(tmp_path: Path) -> None:
    assert not store_of(tmp_path).is_intact("0" * 64)
    with pytest.raises(DataError, match="cannot read"):
        read_verified(store_of(tmp_path).body("0" * 64))


def test_only_what_is_wanted_is_kept(tmp_path: Path) -> None:
    blobs = store_of(tmp_path)
    ref, other = add(blobs, tmp_path), add(blobs, tmp_path, b"other")
    begin(blobs, blobs, other)
    blobs.keep([ref.id])
    assert sorted(path.stem for path in (tmp_path / "store").iterdir()) == [ref.id, ref.id]
    blobs.keep(())
    assert list((tmp_path / "store").iterdir()) == []


def test_files_are_closed_again(tmp_path: Path) -> None:
    source, target = store_of(tmp_path), store_of(tmp_path, "target")
    before = open_files()
    ref, old = add(source, tmp_path), add(target, tmp_path, BODY[:CHUNK])
    for _ in range(5):
        source.read(ref, layout_of(ref), 1)
        begin(target, source, ref, (old.id,))
        target.finish(ref)
        target.is_intact(ref.id)
        target.keep([ref.id, old.id])
    assert open_files() <= before + 3
    source.close()
    target.close()
    assert open_files() == before


def test_a_disk_that_fails_is_named(tmp_path: Path) -> None:
    source, target = store_of(tmp_path), store_of(tmp_path, "target")
    ref = add(source, tmp_path)
    target.part(ref.id).symlink_to("/dev/full")
    target.body(ref.id).mkdir()
    with pytest.raises(WorkError, match=ref.id):
        begin(target, source, ref)
    with pytest.raises(WorkError, match="No space"):
        target.write(ref, 0, b"x")
    with pytest.raises(WorkError, match=ref.id):
        target.finish(ref)
    with pytest.raises(WorkError, match="missing"):
        target.add(tmp_path / "missing", None, CHUNK)
    with pytest.raises(DataError, match="cannot read"):
        target.read(ref, layout_of(ref), 1)


def test_a_blob_written_over_a_spare_file_shows_nothing_of_it(tmp_path: Path) -> None:
    source = store_of(tmp_path)
    spare = tmp_path / "spare"
    target = BlobStore(tmp_path / "target", spare=spare)
    old = add(target, tmp_path, b"x" * (4 * CHUNK))
    target.keep(())
    assert spare.read_bytes() == b"x" * (4 * CHUNK)
    body = b"a" * CHUNK + bytes(CHUNK) + b"b" * 10  # a chunk of zeros never travels
    ref = add(source, tmp_path, body)
    head, packed = source.head(ref), source.packed_head(ref.id)
    assert target.prepare(ref, head, packed) == 0b010
    assert not spare.exists()
    target.write(ref, 0, body[:CHUNK])
    target.write(ref, 2 * CHUNK, body[2 * CHUNK :])
    target.finish(ref)
    assert target.body(ref.id).read_bytes() == body
    assert target.is_intact(ref.id)
    assert not target.has(old.id)
