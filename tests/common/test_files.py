"""Durable files."""

import stat
from pathlib import Path

import pytest

from common.errors import WorkError
from common.files import make_folder, write_atomic, write_private


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


def test_a_private_file_is_private_also_where_another_one_stood(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)
    assert [found.name for found in tmp_path.iterdir()] == ["key"]


def test_what_root_writes_belongs_to_whom_it_belonged_to_or_to_its_folders_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []
    monkeypatch.setattr("common.files.os.geteuid", lambda: 0)
    monkeypatch.setattr("common.files.hand_over", lambda _path, *, like: given.append(like.name))
    write_private(tmp_path / "key", b"1")
    write_private(tmp_path / "key", b"2")
    make_folder(tmp_path / "a" / "b", mode=0o700)
    assert given == [tmp_path.name, "key", tmp_path.name, "a"]
