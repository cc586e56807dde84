"""Certificates on a real disk: what is refused by name, and when people are warned."""

import datetime as dt
import logging
import ssl
from pathlib import Path

import pytest

from broker import authority as authorities
from common.config import TlsConfig, locate
from common.errors import ConfigError
from common.tls import CertificateWatch, context, expiry_warning

DAY = 86_400.0


def identity(folder: Path, days: float) -> TlsConfig:
    now = dt.datetime.now(dt.UTC)
    made, key = authorities.create("lab", now), authorities.new_key()
    issued = authorities.issue_client(made, "rpi1", key.public_key(), now + dt.timedelta(days=days), now)
    for name, text in (("ca", made.pem), ("crt", issued), ("key", authorities.private_pem(key))):
        (folder / name).write_text(text)
    return TlsConfig(ca=str(folder / "ca"), certificate=str(folder / "crt"), key=str(folder / "key"))


def test_connections_check_the_host_and_speak_no_old_tls(tmp_path: Path) -> None:
    made = context(identity(tmp_path, 100))
    assert made.check_hostname
    assert made.verify_mode is ssl.CERT_REQUIRED
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("name", ["ca", "crt", "key"])
@pytest.mark.parametrize("content", [None, "no PEM"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: str | None) -> None:
    tls, path = identity(tmp_path, 100), tmp_path / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ConfigError, match=f"broker.tls: .*{path}"):
        context(tls)


@pytest.mark.parametrize(
    ("left_s", "said"),
    [(30.5 * DAY, ""), (29.5 * DAY, "ends in 29 days"), (0.5 * DAY, "ends in 0 days"), (-DAY, "has ended")],
)
def test_the_end_is_told_thirty_days_ahead(left_s: float, said: str) -> None:
    text = expiry_warning(1e9 + left_s, 1e9)
    assert said in text
    assert bool(text) == bool(said)


def test_the_watch_logs_once_a_day_and_sees_a_renewal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, now = CertificateWatch(identity(tmp_path, 10)), 1e6
    monkeypatch.setattr("common.tls.time.monotonic", lambda: now)
    with caplog.at_level(logging.WARNING):
        assert [watch.warning() for _ in range(3)] == [watch.warning()] * 3 != [""] * 3
        assert len(caplog.records) == 1
        identity(tmp_path, 100)
        now += 2 * 3600
        assert watch.warning() == ""
    assert CertificateWatch(None).warning() == ""


def test_a_credential_of_systemd_beats_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate("etc/device.key") == Path("etc/device.key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert locate("etc/device.key") == Path("etc/device.key")
    (tmp_path / "device.key").write_text("secret")
    assert locate("etc/device.key") == tmp_path / "device.key"
