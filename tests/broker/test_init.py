"""`fedpi-broker init` on a real disk, with the real mosquitto_passwd."""

import os
import pwd
import stat
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from broker import install
from broker.cli import main
from broker.settings import ServeConfig
from common.errors import ConfigError
from coordinator.config import read_config

pytestmark = pytest.mark.process


@pytest.fixture
def config(tmp_path: Path) -> ServeConfig:
    return ServeConfig(folder=str(tmp_path / "broker"), devices=("rpi1", "rpi2"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hashes(config: ServeConfig) -> dict[str, str]:
    lines = (config.root / "passwords").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines)


def test_second_run_changes_nothing(config: ServeConfig) -> None:
    install.init(config)
    before = contents(config.root)
    states = {item.state for item in install.init(config)}
    assert contents(config.root) == before
    assert states == {"kept"}


def test_passwords_differ_are_private_and_never_stand_in_clear_beside_each_other(config: ServeConfig) -> None:
    install.init(config)
    files = sorted((config.root / "secrets").iterdir())
    assert [path.name for path in files] == [f"{u}.password" for u in ("coordinator", "monitor", "rpi1", "rpi2")]
    passwords = {path.read_text().strip() for path in files}
    assert len(passwords) == 4
    for path in (*files, config.root / "passwords"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(digest.startswith("$7$") for digest in hashes(config).values())
    assert not any(password in (config.root / "passwords").read_text() for password in passwords)


def test_command_prints_no_password(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["init", "--out", str(tmp_path), "--device", "rpi1"])
    assert result.exit_code == 0, result.output
    assert "rpi1.password" in result.output
    assert (tmp_path / "secrets" / "rpi1.password").read_text().strip() not in result.output


def test_later_device_joins_and_the_others_keep_their_passwords(config: ServeConfig) -> None:
    install.init(config)
    before = hashes(config)
    install.init(msgspec.structs.replace(config, devices=("rpi3",)))
    after = hashes(config)
    assert set(after) == {*before, "rpi3"}
    assert {user: after[user] for user in before} == before


def test_password_that_moved_to_its_device_stays_valid(config: ServeConfig) -> None:
    install.init(config)
    (config.root / "secrets" / "rpi1.password").unlink()
    before = hashes(config)
    install.init(config)
    assert hashes(config) == before
    assert not (config.root / "secrets" / "rpi1.password").exists()


def test_interrupted_run_goes_on_with_the_password_that_it_wrote(config: ServeConfig) -> None:
    install.init(config)
    secret = (config.root / "secrets" / "rpi1.password").read_text()
    (config.root / "passwords").unlink()
    install.init(config)
    assert (config.root / "secrets" / "rpi1.password").read_text() == secret
    assert "rpi1" in hashes(config)


def test_new_passwords_replace_those_of_the_users_named(config: ServeConfig) -> None:
    install.init(config)
    before, secret = hashes(config), (config.root / "secrets" / "rpi1.password").read_text()
    install.init(msgspec.structs.replace(config, devices=("rpi1",)), new_passwords=True)
    after = hashes(config)
    assert {user for user in before if after[user] != before[user]} == {"coordinator", "monitor", "rpi1"}
    assert (config.root / "secrets" / "rpi1.password").read_text() != secret


def test_edited_file_is_kept_until_force(config: ServeConfig) -> None:
    install.init(config)
    conf = config.root / "mosquitto.conf"
    rendered = conf.read_text()
    conf.write_text(rendered + "max_connections 10\n")
    before = contents(config.root)
    with pytest.raises(ConfigError, match=r"mosquitto\.conf differs .* --force"):
        install.init(msgspec.structs.replace(config, devices=("rpi3",)))
    assert contents(config.root) == before
    install.init(config, force=True)
    assert conf.read_text() == rendered
    assert contents(config.root)["passwords"] == before["passwords"]


@pytest.mark.parametrize("name", ["coordinator", "monitor"])
def test_device_cannot_take_the_name_of_another_role(config: ServeConfig, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        install.init(msgspec.structs.replace(config, devices=(name,)))
    assert not config.root.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "Rpi_1"], "devices"),
        (["--port", "70000"], "port"),
        (["--federation", "a/b"], "federation"),
        (["--anonymous", "--host", "0.0.0.0"], "anonymous"),  # noqa: S104 - refused
    ],
)
def test_wrong_flag_is_one_sentence_and_exit_78(tmp_path: Path, arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, ["init", "--out", str(tmp_path / "new"), *arguments])
    assert result.exit_code == 78
    assert words in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "new").exists()


def test_flag_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text(f"port: 2000\nhost: 127.0.0.2\nanonymous: true\nfolder: {tmp_path / 'made'}\n")
    result = CliRunner().invoke(main, ["init", "--config", str(file), "--port", "3000"])
    assert result.exit_code == 0, result.output
    assert "listener 3000 127.0.0.2" in (tmp_path / "made" / "mosquitto.conf").read_text()


@pytest.mark.parametrize(("has_tls", "own"), [(True, "server.key"), (False, "passwords")])
def test_what_root_prepares_is_roots_but_for_what_the_brokers_account_keeps_to_itself(
    tmp_path: Path, has_tls: bool, own: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, who gives files to others")
    nobody = pwd.getpwnam("nobody")
    config = ServeConfig(folder=str(tmp_path), federation="lab", tls=has_tls)
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", nobody.pw_uid, nobody.pw_gid)
    install.init(config)
    assert "\nuser nobody\n" in (tmp_path / "mosquitto.conf").read_text()
    theirs = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.stat().st_uid == nobody.pw_uid}
    assert theirs == {"data", own}


def test_the_brokers_account_needs_no_configuration_that_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut = tmp_path / "etc"

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("broker.cli.USUAL_CONFIG", shut / "broker.yaml")
    monkeypatch.setattr(Path, "exists", lambda path: refuse(path) if path.parent == shut else path.is_file())
    unprepared = CliRunner().invoke(main, ["run", "--mosquitto", "--out", str(tmp_path / "broker")])
    assert "mosquitto.conf is missing" in unprepared.output
    people = CliRunner().invoke(main, ["enrolled"])
    assert (people.exit_code, "run this as root" in people.output) == (78, True)


# ---- the coordinator on this machine --------------------------------------------------------

COORDINATOR = """\
federation: brain  # mine
state: state
model: {name: numpy}
broker: {host: elsewhere.example}
"""


@pytest.mark.parametrize(
    ("options", "login"),
    [
        ((), {"username": "coordinator", "password_file": "broker/secrets/coordinator.password"}),
        (("--anonymous",), {"username": None, "password_file": None}),
    ],
)
def test_init_points_the_coordinator_that_is_named_at_a_broker_without_tls(
    tmp_path: Path, options: tuple[str, ...], login: dict[str, str | None]
) -> None:
    path = tmp_path / "coordinator.yaml"
    path.write_text(COORDINATOR)
    words = ["init", "--out", str(tmp_path / "broker"), "--port", "1899", "--coordinator", str(path), *options]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert f"{path} points at this broker now." in done.output
    broker = read_config(path).broker
    assert (broker.host, broker.port, broker.username) == ("127.0.0.1", 1899, login["username"])
    file = login["password_file"]
    assert broker.password_file == (None if file is None else str(tmp_path / file))
    assert file is None or Path(broker.password_file or "").is_file()
    assert path.read_text().startswith("federation: brain  # mine\n")


def test_init_says_what_a_coordinator_needs_whose_configuration_is_not_there_yet(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.yaml"
    done = CliRunner().invoke(main, ["init", "--out", str(tmp_path / "broker"), "--coordinator", str(path)])
    assert done.exit_code == 0, done.output
    assert f"{path} needs these sections:" in done.output
    assert "username: coordinator" in done.output
    assert not path.exists()
