"""A device whose disk is full: it waits, says so, and goes on when there is room."""

import errno
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from common.blobs import BlobStore
from common.chunks import layout_of
from common.config import TransferConfig
from common.errors import DiskFullError
from common.link import Link
from common.messages import Chunk
from device.downloads import NO_ROOM, RETRY_S, Downloads
from device.runner import _write_update

CHUNK = 4096
BODY = bytes(range(256)) * 64  # four chunks


class FakeLink:
    """Records what is listened to."""

    def __init__(self) -> None:
        self.topics: set[str] = set()

    def subscribe(self, topic: str) -> None:
        self.topics.add(topic)

    def unsubscribe(self, topic: str) -> None:
        self.topics.discard(topic)


class Shelf:
    """A sender's store, a receiver's, and the downloads between them."""

    def __init__(self, folder: Path) -> None:
        self.source, self.target = BlobStore(folder / "source"), BlobStore(folder / "target")
        (folder / "draft").write_bytes(BODY)
        self.ref = self.source.add(folder / "draft", None, CHUNK)
        self.link = FakeLink()
        self.downloads = Downloads("rpi1", "lab", TransferConfig(), self.target, cast("Link", self.link))

    def send(self, now: float) -> list[str | None]:
        layout = layout_of(self.ref)
        chunks = [Chunk(self.ref.id, index, self.source.read(self.ref, layout, index)) for index in range(layout.total)]
        return [self.downloads.take(chunk, now) for chunk in chunks]


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_download_waits_for_room_and_goes_on(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not shelf.downloads.begin(shelf.ref, 0.0)
    with monkeypatch.context() as disk:
        disk.setattr("os.posix_fallocate", full)
        assert shelf.send(1.0) == [None] * layout_of(shelf.ref).total
        assert shelf.downloads.trouble == NO_ROOM
        assert not shelf.link.topics
    assert shelf.downloads.retry(0.9 + RETRY_S) is None  # too early
    assert not shelf.link.topics
    assert shelf.downloads.retry(1.0 + RETRY_S) is None
    assert shelf.link.topics
    assert shelf.downloads.trouble == NO_ROOM  # until it is complete
    assert shelf.send(20.0)[-1] == shelf.ref.id
    assert not shelf.downloads.trouble
    assert shelf.target.is_intact(shelf.ref.id)


def test_disk_that_fills_between_two_chunks_keeps_the_first(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.downloads.begin(shelf.ref, 0.0)
    layout = layout_of(shelf.ref)
    for index in range(layout.head_chunks + 2):
        shelf.downloads.take(Chunk(shelf.ref.id, index, shelf.source.read(shelf.ref, layout, index)), 0.0)
    with monkeypatch.context() as disk:
        disk.setattr("os.pwrite", full)
        shelf.send(1.0)
    assert shelf.target.part(shelf.ref.id).read_bytes()[: 2 * CHUNK] == BODY[: 2 * CHUNK]
    assert shelf.downloads.trouble == NO_ROOM


def test_download_that_nobody_needs_any_more_is_no_trouble(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf.downloads.begin(shelf.ref, 0.0)
    monkeypatch.setattr("os.posix_fallocate", full)
    shelf.send(1.0)
    shelf.downloads.only(set())
    assert not shelf.downloads.trouble
    assert shelf.downloads.retry(100.0) is None


def test_full_disk_is_the_reason_of_a_training_that_failed(tmp_path: Path) -> None:
    draft = tmp_path / "update.tmp"
    draft.symlink_to("/dev/full")
    base = [np.zeros(10_000, np.float32)]
    with pytest.raises(DiskFullError, match=r"update\.tmp: cannot write the update: No space left"):
        _write_update(draft, base, base)
    assert not draft.is_symlink()  # what was written of it takes no room


def test_part_takes_its_room_at_once_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(tmp_path)
    head, packed, ref = shelf.source.head(shelf.ref), shelf.source.packed_head(shelf.ref.id), shelf.ref
    with monkeypatch.context() as disk:
        disk.setattr("os.posix_fallocate", full)
        with pytest.raises(DiskFullError, match="No space left"):
            shelf.target.prepare(ref, head, packed)
        assert not shelf.target.part(ref.id).exists()
    shelf.target.prepare(ref, head, packed)
    assert shelf.target.part(ref.id).stat().st_blocks * 512 >= ref.size
