"""What `join` refuses to install over an identity: forged, old and half-written files leave everything as it was."""

import base64
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from broker import authority as authorities
from broker import enrolment, install, rekeying
from broker.office import open_office
from broker.settings import ServeConfig
from common.errors import ConfigError, WorkError
from common.signing import parse_peers
from device.config import read_config
from device.joining import join


@pytest.fixture
def broker(tmp_path: Path) -> ServeConfig:
    made = ServeConfig(folder=str(tmp_path / "broker"), federation="lab", tls=True)
    install.init(made)
    return made


@pytest.fixture
def etc(broker: ServeConfig, tmp_path: Path) -> Path:
    """Return the folder in which rpi1 is installed."""
    path = enrolment.enroll(broker, "rpi1", tmp_path)
    join(path, tmp_path / "etc")
    path.unlink()
    return tmp_path / "etc"


@pytest.fixture
def renewal(broker: ServeConfig, etc: Path, tmp_path: Path) -> Path:  # noqa: ARG001 - installed first
    ((_, path),) = enrolment.renew(broker, ["rpi1"], tmp_path)
    assert path is not None
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def change(path: Path, **parts: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))


def refuse(path: Path, etc: Path, said: str) -> None:
    before = contents(etc)
    with pytest.raises(ConfigError, match=said):
        join(path, etc)
    assert contents(etc) == before


def strangers_peers() -> str:
    return f"coordinator {base64.b64encode(authorities.new_signing_key()[1]).decode()}\n"


def certified(etc: Path, authority: authorities.Authority, days: int = 0) -> str:
    """Certify the public key of rpi1, which everybody can know, without the digest of what else is said."""
    ours = x509.load_pem_x509_certificate((etc / "device/device.crt").read_bytes())
    public, at = ours.public_key(), dt.datetime.now(dt.UTC) + dt.timedelta(days)
    assert isinstance(public, authorities.Public)
    return authorities.issue_client(authority, "rpi1", public, at + dt.timedelta(100), at)


def test_a_renewal_by_another_authority_replaces_nothing(renewal: Path, etc: Path) -> None:
    forged = authorities.create("lab", dt.datetime.now(dt.UTC))
    change(renewal, ca=forged.pem, certificate=certified(etc, forged), peers=strangers_peers())
    refuse(renewal, etc, "of another authority")


@pytest.mark.parametrize("part", ["peers", "host", "federation", "port"])
def test_nothing_of_a_renewal_can_be_changed(renewal: Path, etc: Path, part: str) -> None:
    change(renewal, **{part: {"peers": strangers_peers(), "port": 1884}.get(part, "evil")})
    refuse(renewal, etc, "not what the authority certified")


def test_the_list_of_keys_cannot_be_changed_beside_the_certificate_that_is_installed(renewal: Path, etc: Path) -> None:
    change(renewal, certificate=(etc / "device/device.crt").read_text(), peers=strangers_peers())
    refuse(renewal, etc, "not what the authority certified")


def test_a_renewal_of_an_earlier_version_keeps_keys_and_broker_as_they_are(
    broker: ServeConfig, renewal: Path, etc: Path
) -> None:
    authority = open_office(broker).authority
    change(renewal, certificate=certified(etc, authority), host="evil", port=1)
    config = read_config(etc / "device.yaml")
    join(renewal, etc)
    assert read_config(etc / "device.yaml") == config
    change(renewal, peers=strangers_peers())
    refuse(renewal, etc, "changes whose signatures count")


def test_an_old_renewal_brings_no_old_key_back(broker: ServeConfig, renewal: Path, etc: Path, tmp_path: Path) -> None:
    old = renewal.read_text()
    for name, path in rekeying.prepare(broker, tmp_path):
        assert name == "rpi1"
        join(path, etc)
    assert len(parse_peers((etc / "device/peers").read_text())["coordinator"]) == 2
    (etc / "device/device.crt").write_text(certified(etc, open_office(broker).authority, days=1))
    renewal.write_text(old)
    refuse(renewal, etc, "is older than")


@pytest.mark.parametrize(
    ("part", "value", "said"),
    [
        ("signing_key", None, "one of its keys is missing"),
        ("signing_key", "x", "is damaged"),
        ("peers", "", "the coordinator's key is missing"),
        ("peers", "coordinator x\n", "line 1"),
        ("name", "rpi2", "of another name"),
        ("name", "rpi 1", "'rpi 1' is not a valid name; use 1 to 32 of a-z"),
        ("host", "x" * 2**20, "more than 1048576 bytes"),
    ],
)
def test_a_first_file_is_whole_or_nothing_is_written(
    broker: ServeConfig, tmp_path: Path, part: str, value: str | None, said: str
) -> None:
    path = enrolment.enroll(broker, "rpi1", tmp_path)
    change(path, **{part: value})
    with pytest.raises(ConfigError, match=said):
        join(path, tmp_path / "etc")
    assert not (tmp_path / "etc").exists()


def test_a_configuration_that_is_wrong_keeps_the_identity_that_is_installed(
    broker: ServeConfig, etc: Path, tmp_path: Path
) -> None:
    path = enrolment.enroll(broker, "rpi2", tmp_path)
    with (etc / "device.yaml").open("a") as file:
        file.write("serving: {treads: 2}\n")
    refuse(path, etc, "serving.treads")


def test_a_disk_that_fails_between_two_files_replaces_none(broker: ServeConfig, etc: Path, tmp_path: Path) -> None:
    path = enrolment.enroll(broker, "rpi2", tmp_path)
    (etc / "device/.device.crt.tmp").mkdir()  # the last one cannot be written
    before = contents(etc)
    with pytest.raises(WorkError, match=r"device\.crt: cannot write"):
        join(path, etc)
    assert contents(etc) == before
