"""Enrolling, renewing and revoking on a real disk: who gets what, what is kept, what is refused."""

import json
import stat
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker import enrolment, install, register
from broker.cli import main
from broker.settings import ServeConfig
from common.bundle import Bundle, read_bundle
from common.errors import ConfigError
from common.signing import parse_peers


@pytest.fixture
def config(tmp_path: Path) -> ServeConfig:
    made = ServeConfig(
        folder=str(tmp_path / "broker"),
        host="0.0.0.0",  # noqa: S104 - not run
        port=8883,
        federation="lab",
        names=("broker.lab",),
    )
    install.init(made)
    return made


@pytest.fixture
def rpi1(config: ServeConfig, tmp_path: Path) -> Bundle:
    return read_bundle(enrolment.enroll(config, "rpi1", tmp_path))


def certificate(pem: str | bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode() if isinstance(pem, str) else pem)


def common_name(pem: str | bytes) -> str:
    return str(certificate(pem).subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def purposes(pem: str | bytes) -> list[x509.ObjectIdentifier]:
    return list(certificate(pem).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def revoked_serials(config: ServeConfig) -> set[int]:
    return {entry.serial_number for entry in x509.load_pem_x509_crl((config.root / "revoked.crl").read_bytes())}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_second_init_changes_nothing_but_the_date_of_the_revocation_list(config: ServeConfig) -> None:
    before = contents(config.root)
    assert {item.state for item in install.init(config)} == {"kept"}
    after = contents(config.root)
    assert {name for name in before if after[name] != before[name]} <= {"revoked.crl"}


def test_private_files_are_for_their_owner_only(config: ServeConfig, tmp_path: Path, rpi1: Bundle) -> None:  # noqa: ARG001
    private = [tmp_path / "rpi1.fedpi", *config.root.rglob("*.key"), *config.root.rglob("*.signing")]
    assert len(private) == 5
    for path in (*private, config.root / "authority" / "register.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((config.root / "authority").stat().st_mode) == 0o700


def test_a_device_gets_one_file_that_names_it_and_nobody_elses_keys(config: ServeConfig, rpi1: Bundle) -> None:
    assert common_name(rpi1.certificate) == "rpi1"
    assert (rpi1.host, rpi1.port, rpi1.federation) == ("broker.lab", 8883, "lab")
    assert rpi1.key is not None
    private = load_pem_private_key(rpi1.key.encode(), None)
    assert private.public_key() == certificate(rpi1.certificate).public_key()
    assert set(parse_peers(rpi1.peers)) == {"coordinator"}
    assert set(parse_peers((config.root / "coordinator" / "peers").read_text())) == {"rpi1"}
    assert rpi1.key not in "".join(path.read_text() for path in config.root.rglob("*") if path.is_file())


def test_no_certificate_is_good_for_anothers_part(config: ServeConfig, rpi1: Bundle) -> None:
    server = (config.root / "server.crt").read_bytes()
    assert purposes(server) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert purposes(rpi1.certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    names = certificate(server).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"broker.lab", "localhost"} <= set(names.get_values_for_type(x509.DNSName))


def test_a_name_is_enrolled_once(config: ServeConfig, tmp_path: Path, rpi1: Bundle) -> None:  # noqa: ARG001
    with pytest.raises(ConfigError, match="is there already"):
        enrolment.enroll(config, "rpi1", tmp_path)
    (tmp_path / "rpi1.fedpi").unlink()
    with pytest.raises(ConfigError, match="enrolled already"):
        enrolment.enroll(config, "rpi1", tmp_path)
    with pytest.raises(ConfigError, match="enrolled already"):
        enrolment.enroll(config, "coordinator", tmp_path)


def test_the_revoked_is_listed_denied_and_forgotten_and_comes_back_only_on_purpose(
    config: ServeConfig, tmp_path: Path, rpi1: Bundle
) -> None:
    acl = (config.root / "acl").read_text()
    assert enrolment.revoke(config, "rpi1") is None
    assert revoked_serials(config) == {certificate(rpi1.certificate).serial_number}
    assert (config.root / "acl").read_text().endswith("user rpi1\ntopic deny #\n")
    assert (config.root / "coordinator" / "peers").read_text() == "# nobody\n"
    assert {item.state for item in install.init(config)} == {"kept"}
    with pytest.raises(ConfigError, match="--again"):
        enrolment.enroll(config, "rpi1", tmp_path / "broker")
    enrolment.enroll(config, "rpi1", tmp_path / "broker", again=True)
    assert revoked_serials(config) == {certificate(rpi1.certificate).serial_number}
    assert (config.root / "acl").read_text() == acl


def test_rules_that_an_operator_added_stay(config: ServeConfig, tmp_path: Path, rpi1: Bundle) -> None:  # noqa: ARG001
    acl, rules = config.root / "acl", "user camera1\ntopic read fedpi/2/lab/dev/+/prediction\n"
    enrolment.enroll(config, "rpi2", tmp_path)
    enrolment.revoke(config, "rpi1")
    acl.write_text(acl.read_text() + rules)
    enrolment.revoke(config, "rpi2")
    text = acl.read_text()
    assert text.count(rules) == text.count("# Revoked:") == 1
    assert text.endswith("user rpi1\ntopic deny #\nuser rpi2\ntopic deny #\n")


def test_who_is_not_enrolled_cannot_be_revoked(config: ServeConfig, rpi1: Bundle) -> None:  # noqa: ARG001
    with pytest.raises(ConfigError, match="enrolled are: rpi1"):
        enrolment.revoke(config, "rpi2")
    with pytest.raises(ConfigError, match="without it there is no federation"):
        enrolment.revoke(config, "coordinator")


def test_a_renewal_keeps_the_keys_and_holds_no_secret(config: ServeConfig, tmp_path: Path, rpi1: Bundle) -> None:
    assert enrolment.renew(config, [], tmp_path) == []
    ((name, path),) = enrolment.renew(config, ["rpi1"], tmp_path)
    assert (name, path) == ("rpi1", tmp_path / "rpi1.fedpi")
    renewed = read_bundle(tmp_path / "rpi1.fedpi")
    assert (renewed.key, renewed.signing_key) == (None, None)
    old, new = certificate(rpi1.certificate), certificate(renewed.certificate)
    assert new.public_key() == old.public_key()
    assert new.serial_number != old.serial_number
    enrolment.revoke(config, "rpi1")
    assert revoked_serials(config) == {old.serial_number, new.serial_number}


def test_renewing_takes_all_that_end_soon(config: ServeConfig, tmp_path: Path) -> None:
    short = msgspec.structs.replace(config, folder=str(tmp_path / "short"), days=29)
    install.init(short)
    before = (short.root / "server.crt").read_bytes()
    enrolment.enroll(short, "rpi1", tmp_path)
    assert [row.note for row in enrolment.listed(short)] == ["ends soon"] * 3
    done = dict(enrolment.renew(short, [], tmp_path))
    assert done == {"broker": None, "coordinator": None, "rpi1": tmp_path / "rpi1.fedpi"}
    assert (short.root / "server.crt").read_bytes() != before


def test_init_points_the_coordinator_at_the_broker_and_keeps_the_rest(config: ServeConfig, tmp_path: Path) -> None:
    file = tmp_path / "coordinator.yaml"
    file.write_text("state: s # here\nbroker: {host: old}\n\n# the model\nmodel: {name: numpy}\n")
    done = msgspec.structs.replace(config, folder=str(tmp_path / "other"), coordinator=str(file))
    install.init(done)
    text = file.read_text()
    assert "state: s # here" in text
    assert "\n\n# the model\nmodel: {name: numpy}\n" in text
    assert "host: 127.0.0.1\n" in text
    assert (tmp_path / "coordinator" / "coordinator.key").exists()


def test_the_coordinators_key_is_never_replaced_in_silence(config: ServeConfig) -> None:
    (config.root / "coordinator" / "coordinator.key").unlink()
    with pytest.raises(ConfigError, match=r"coordinator\.key is missing"):
        install.init(config)


def test_another_federation_does_not_take_over_an_authority(config: ServeConfig) -> None:
    with pytest.raises(ConfigError, match="that of 'lab', not 'ward'"):
        install.init(msgspec.structs.replace(config, federation="ward"), force=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "federation"),  # noqa: S104 - refused
        (["--host", "0.0.0.0", "--federation", "lab", "--device", "rpi1"], "fedpi-broker enroll"),  # noqa: S104
        (["--tls", "--anonymous"], "anonymous and tls"),
        (["--tls", "--federation", "lab", "--name", "a b"], "names"),
    ],
)
def test_what_does_not_go_with_tls_is_one_sentence(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["init", "--out", str(tmp_path / "new"), *arguments])
    assert result.exit_code == 78, result.output
    assert said in result.output
    assert not (tmp_path / "new").exists()


@pytest.mark.process
def test_loopback_stays_without_certificates_and_no_tls_keeps_passwords(tmp_path: Path) -> None:
    for number, arguments in enumerate(([], ["--host", "0.0.0.0", "--no-tls"])):  # noqa: S104 - not run
        folder = tmp_path / str(number)
        result = CliRunner().invoke(main, ["init", "--out", str(folder), *arguments])
        assert result.exit_code == 0, result.output
        assert "cafile" not in (folder / "mosquitto.conf").read_text()
        assert (folder / "secrets" / "coordinator.password").exists()


def test_a_damaged_or_missing_authority_is_one_sentence(config: ServeConfig, tmp_path: Path) -> None:
    (config.root / "authority" / "register.json").write_text("{")
    for folder, said in ((config.folder, "is damaged"), (str(tmp_path), "fedpi-broker init")):
        result = CliRunner().invoke(main, ["revoke", "rpi1", "--out", folder])
        assert result.exit_code == 78
        assert said in result.output


def test_enrolled_lists_people_and_programs(config: ServeConfig, rpi1: Bundle) -> None:  # noqa: ARG001
    result = CliRunner().invoke(main, ["enrolled", "--out", config.folder, "--json"])
    assert [row["name"] for row in json.loads(result.output)] == ["broker", "coordinator", "rpi1"]
    assert register.load(config.authority_root).members["rpi1"].role == "device"


@pytest.mark.parametrize("name", ["rpi 1", "../../evil", "Rpi1", "rpi_1", "-rpi", "", "r" * 33, "rpi1\n"])
def test_a_name_that_no_device_could_join_under_is_enrolled_nowhere(
    config: ServeConfig, tmp_path: Path, name: str
) -> None:
    (tmp_path / "to").mkdir()
    before = contents(tmp_path)
    result = CliRunner().invoke(main, ["enroll", "--out", config.folder, "--to", str(tmp_path / "to"), "--", name])
    assert result.exit_code == 78, result.output
    assert "is not a valid name; use 1 to 32 of a-z, 0-9 and -" in result.output
    assert contents(tmp_path) == before


def test_a_bad_name_in_an_earlier_record_reaches_no_list(config: ServeConfig, rpi1: Bundle) -> None:  # noqa: ARG001
    known = register.load(config.authority_root)
    old = msgspec.structs.replace(known, members={**known.members, "rpi 1": known.members["rpi1"]})
    assert set(parse_peers(old.peers("device"))) == {"rpi1"}
