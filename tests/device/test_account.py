"""Root's check looks at files as the service's account does, with the keys that systemd hands over."""

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from common.config import BrokerConfig, locate
from common.errors import WorkError
from device import account, check
from device.config import DeviceConfig
from tests.device.test_check_connection import checked


@pytest.mark.skipif(os.geteuid() != 0, reason="only root checks as another account")
def test_a_key_of_roots_is_handed_over_and_a_check_that_breaks_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "device.key").write_text("secret")
    (tmp_path / "device.key").chmod(0o600)
    nobody = pwd.getpwnam("nobody")

    def tell() -> bytes:
        return f"{os.geteuid()} {locate('/etc/fedpi/device/device.key').read_text()}".encode()

    def fail() -> bytes:
        raise IndexError

    assert account.run_as(nobody, tmp_path, tell) == f"{nobody.pw_uid} secret".encode()
    with pytest.raises(WorkError, match="as nobody ended by itself"):
        account.run_as(nobody, tmp_path, fail)
    assert "IndexError" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root checks as another account")
def test_root_checks_as_the_services_account(
    mosquitto: BrokerConfig, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(account, "ACCOUNT", "nobody")
    nobody, folder = pwd.getpwnam("nobody"), Path("/tmp") / tmp_path_factory.mktemp("as").name  # noqa: S108 - see below
    (folder / "state").mkdir(parents=True)  # pytest's own folders are closed to others
    (folder / "state/epoch").write_text("1")
    config = DeviceConfig(federation="lab", device="rpi1", state=str(folder / "state"))

    def state() -> bytes:
        try:
            return check._state(config).standing.encode()  # noqa: SLF001 - the whole check may load what nobody can read
        except WorkError as error:
            return str(error).encode()

    try:
        assert b"cannot write to" in account.run_as(nobody, folder, state)
        os.chown(folder / "state", nobody.pw_uid, nobody.pw_gid)
        assert b"nobody may not read and write" in account.run_as(nobody, folder, state)
        is_readable = bool(account.run_as(nobody, folder, account.is_readable))
        assert checked(folder, port=mosquitto.port)[1] == (70 if is_readable else 0)
        os.chown(folder / "state/epoch", nobody.pw_uid, nobody.pw_gid)
        assert account.run_as(nobody, folder, state) in {b"ok", b"warn"}
        assert checked(folder, port=mosquitto.port)[1] == 0
    finally:
        subprocess.run(["rm", "-r", str(folder)], check=True)
