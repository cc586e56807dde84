"""`fedpi-device join` on a real disk: from the file that `enroll` made to a configuration that loads."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker import enrolment, install
from broker.settings import ServeConfig
from common.bundle import read_bundle
from common.config import load
from common.errors import ConfigError
from common.signing import Signer, Verifier
from common.tls import context
from coordinator.cli import main as coordinator
from coordinator.config import WatchConfig
from device.cli import main
from device.config import read_config
from device.joining import join


@pytest.fixture
def broker(tmp_path: Path) -> ServeConfig:
    made = ServeConfig(folder=str(tmp_path / "broker"), federation="lab", tls=True)
    install.init(made)
    return made


@pytest.fixture
def bundle(broker: ServeConfig, tmp_path: Path) -> Path:
    return enrolment.enroll(broker, "rpi1", tmp_path)


def test_joining_gives_a_configuration_with_keys_that_work(bundle: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["join", str(bundle), "--config-folder", str(tmp_path / "etc")])
    assert result.exit_code == 0, result.output
    assert "Delete" in result.output
    config = read_config(tmp_path / "etc" / "device.yaml")
    assert (config.device, config.federation) == ("rpi1", "lab")
    assert config.broker.tls is not None
    context(config.broker.tls)
    Signer(config.signing), Verifier(config.signing)
    for name in ("device.key", "device.signing"):
        assert stat.S_IMODE((tmp_path / "etc" / "device" / name).stat().st_mode) == 0o600


def test_joining_keeps_the_rest_of_a_configuration(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "device.yaml"
    file.write_text("federation: old\ndevice: old\nstate: mine # here\ndata: {images: pictures}\n")
    join(bundle, tmp_path)
    once = file.read_text()
    assert "state: mine # here" in once
    assert read_config(file).data.images == "pictures"
    join(bundle, tmp_path)
    assert file.read_text() == once


def test_a_renewal_changes_the_certificate_only(broker: ServeConfig, bundle: Path, tmp_path: Path) -> None:
    join(bundle, tmp_path)
    before = {path.name: path.read_text() for path in (tmp_path / "device").iterdir()}
    enrolment.renew(broker, ["rpi1"], tmp_path)
    assert join(bundle, tmp_path).is_renewal
    after = {path.name: path.read_text() for path in (tmp_path / "device").iterdir()}
    assert {name for name in before if after[name] != before[name]} == {"device.crt"}


def test_a_renewal_without_its_keys_is_refused(broker: ServeConfig, bundle: Path, tmp_path: Path) -> None:
    (renewed,) = (path for _, path in enrolment.renew(broker, ["rpi1"], tmp_path) if path)
    with pytest.raises(ConfigError, match="not installed"):
        join(renewed, tmp_path / "etc")
    join(enrolment.enroll(broker, "rpi2", tmp_path), tmp_path / "etc")
    with pytest.raises(ConfigError, match="another key"):
        join(bundle, tmp_path / "etc")


def damaged(document: dict[str, object], key: str, value: object) -> str:
    return json.dumps({**document, key: value})


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("format", 2, "no file of"),
        ("certificate", "x", "is damaged"),
        ("key", "x", "is damaged"),
        ("extra", 1, "no file of"),
    ],
)
def test_a_damaged_file_is_refused_before_anything_is_written(
    bundle: Path, tmp_path: Path, key: str, value: object, said: str
) -> None:
    bundle.write_text(damaged(json.loads(bundle.read_text()), key, value))
    result = CliRunner().invoke(main, ["join", str(bundle), "--config-folder", str(tmp_path / "etc")])
    assert result.exit_code == 78
    assert said in result.output
    assert not (tmp_path / "etc").exists()


def test_a_certificate_of_another_authority_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = ServeConfig(folder=str(tmp_path / "other"), federation="lab", tls=True)
    install.init(other)
    foreign = (other.root / "ca.crt").read_text()
    bundle.write_text(damaged(json.loads(bundle.read_text()), "ca", foreign))
    with pytest.raises(ConfigError, match="is damaged"):
        join(bundle, tmp_path / "etc")


def test_a_monitor_joins_where_people_watch(broker: ServeConfig, bundle: Path, tmp_path: Path) -> None:
    path = enrolment.enroll(broker, "monitor", tmp_path)
    with pytest.raises(ConfigError, match="fedpi-coordinator join"):
        join(path, tmp_path / "etc")
    refused = CliRunner().invoke(coordinator, ["join", str(bundle), "--config-folder", str(tmp_path / "etc")])
    assert refused.exit_code == 78
    result = CliRunner().invoke(coordinator, ["join", str(path), "--config-folder", str(tmp_path / "etc")])
    assert result.exit_code == 0, result.output
    config = load(tmp_path / "etc" / "monitor.yaml", WatchConfig)
    assert config.broker.tls is not None
    context(config.broker.tls)
    assert read_bundle(path).name == "monitor"
