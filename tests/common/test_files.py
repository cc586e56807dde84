"""Durable files."""

from pathlib import Path

import pytest

from common.errors import WorkError
from common.files import write_atomic


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "offer"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert [found.name for found in path.parent.iterdir()] == ["offer"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "offer", tmp_path / "folder", Path("/proc/offer")):
        with pytest.raises(WorkError, match=path.name):
            write_atomic(path, b"new")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "folder"]


def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "offer"
    write_atomic(path, b"old")
    (tmp_path / ".offer.tmp").symlink_to("/dev/full")
    with pytest.raises(WorkError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
