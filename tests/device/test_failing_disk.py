"""A card that turns read-only, or fails: the device says so, sits rounds out, serves on, and goes on when it may."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.authority import new_signing_key
from common.config import SigningConfig
from common.errors import ConfigError, DiskFullError, WorkError
from common.files import disk_error
from common.messages import Label
from device.config import DeviceConfig
from device.serving import Serving, Shelf
from device.store import CurrentRelease, DeviceStore, hold
from tests.device.test_full_disk import BODY
from tests.device.test_full_disk import Shelf as Transfer

Install = Callable[..., CurrentRelease]
NUMBERS = {errno.EROFS: "its disk is read-only", errno.EIO: "its disk fails", errno.EDQUOT: "its disk is full"}


class Disk:
    """Every way to write below a folder, which all fail from `break_` on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def break_(self, number: int) -> None:
        def fail(*_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number))

        before, opened = os.open, Path.open

        def open_(path: object, flags: int, *rest: int, **more: int) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR) and path != os.devnull:
                fail()
            return before(path, flags, *rest, **more)  # type: ignore[arg-type]  # as it was called

        def open_file(self: Path, mode: str = "r", *rest: object, **more: object) -> object:
            if set(mode) & set("wax+"):
                fail()
            return opened(self, mode, *rest, **more)  # type: ignore[call-overload]  # as it was called

        self._patch.setattr("os.open", open_)
        self._patch.setattr(Path, "open", open_file)
        for name in ("os.pwrite", "os.ftruncate", "os.posix_fallocate", "os.fsync", "tempfile.TemporaryFile"):
            self._patch.setattr(name, fail)
        for name in ("replace", "unlink", "mkdir", "write_bytes", "write_text", "touch"):
            self._patch.setattr(Path, name, fail)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize(("number", "said"), NUMBERS.items())
def test_a_disk_that_takes_no_data_now_is_waited_for(number: int, said: str) -> None:
    error = disk_error("x", OSError(number, os.strerror(number)))
    assert isinstance(error, DiskFullError)
    assert error.state == said
    assert not isinstance(disk_error("x", OSError(errno.EACCES, "no")), DiskFullError)


@pytest.mark.parametrize(("number", "said"), NUMBERS.items())
def test_a_device_goes_on_without_its_disk_and_says_so_until_it_takes_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    store = DeviceStore(tmp_path)
    (tmp_path / "draft").write_bytes(BODY)
    ref = store.models.add(tmp_path / "draft", None, 4096)
    store.models.body(ref.id).write_bytes(b"damaged")
    (tmp_path / "offer.msgpack").write_bytes(b"x")
    with monkeypatch.context() as patch:
        Disk(patch).break_(number)
        store.recover()
        assert store.trouble == said
        store.keep_models(())
        store.drop_update()
        store.begin_draft()
        assert store.offer() is None
        store.look()
        assert store.trouble == said
    store.look()
    assert store.trouble == ""
    store.keep_models(())
    assert store.models.complete() == []


def test_a_download_waits_for_a_read_only_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transfer = Transfer(tmp_path)
    transfer.downloads.begin(transfer.ref, 0.0)
    with monkeypatch.context() as patch:
        Disk(patch).break_(errno.EROFS)
        assert set(transfer.send(1.0)) == {None}
        assert transfer.downloads.trouble == "its disk is read-only"
        assert transfer.downloads.retry(100.0) is None
    transfer.downloads.retry(200.0)
    assert transfer.send(201.0)[-1] == transfer.ref.id
    assert transfer.downloads.trouble == ""


@pytest.mark.parametrize("has_lock", [True, False])
def test_a_process_starts_on_a_read_only_disk_and_keeps_a_second_one_out(
    tmp_path: Path, disk: Disk, *, has_lock: bool
) -> None:
    lock = tmp_path / "lock"
    if has_lock:
        lock.touch()
    disk.break_(errno.EROFS)
    with hold(lock, "another process runs"):
        if has_lock:
            with pytest.raises(ConfigError, match="another process runs"), hold(lock, "another process runs"):
                pass


def test_a_first_start_on_a_disk_that_takes_no_data_is_tried_again(tmp_path: Path, disk: Disk) -> None:
    disk.break_(errno.EROFS)
    with pytest.raises(WorkError) as caught, hold(tmp_path / "new/lock", "another process runs"):
        pass
    assert caught.value.exit_code == 70  # not 78, after which systemd would not try again


def test_serving_needs_no_disk_that_takes_data(
    tmp_path: Path, disk: Disk, model: Callable[..., bytes], install: Install
) -> None:
    labels: tuple[Label, Label] = ("no", "yes")
    install(tmp_path, "r7", model(), labels)
    disk.break_(errno.EROFS)
    shelf = Shelf(tmp_path, 1)
    assert shelf.look() == ("release-served", "release r7 is served from now on.")


def test_a_release_that_the_disk_cannot_give_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert Shelf(tmp_path, 1).look() is None


def test_serving_signs_with_an_epoch_above_that_of_its_last_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(new_signing_key()[0])
    (tmp_path / "peers").write_text("# nobody\n")
    signing = SigningConfig(key=str(tmp_path / "key"), peers=str(tmp_path / "peers"))
    config = DeviceConfig(federation="lab", device="rpi1", state=str(tmp_path), signing=signing)
    kept = []
    for clock in (2e9, 1e9):  # the clock goes back
        monkeypatch.setattr("time.time", lambda clock=clock: clock)
        Serving(config)
        kept.append(int((tmp_path / "serving-epoch").read_text()))
    assert kept == [2_000_000_000, 2_000_000_001]
