"""Replacing the coordinator's keys: in two steps that devices follow, or all at once after a theft."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from cryptography import x509

from broker import enrolment, install, register, rekeying
from broker.cli import main
from broker.settings import ServeConfig
from common.bundle import Bundle, Identity, read_bundle
from common.config import SigningConfig
from common.errors import ConfigError, PeerError
from common.signing import Signer, Verifier, parse_peers

TOPIC = "fedpi/2/lab/coord/status"


@pytest.fixture
def config(tmp_path: Path) -> ServeConfig:
    made = ServeConfig(folder=str(tmp_path / "broker"), federation="lab", tls=True)
    install.init(made)
    return made


@pytest.fixture
def device(config: ServeConfig, tmp_path: Path) -> Identity:
    """Return an installed identity of rpi1's."""
    identity = Identity(tmp_path / "rpi1", "device")
    identity.install(read_bundle(enrolment.enroll(config, "rpi1", tmp_path)))
    enrolment.enroll(config, "monitor", tmp_path)
    return identity


def join(device: Identity, files: list[tuple[str, Path]]) -> Bundle:
    assert [name for name, _ in files] == ["rpi1"]
    bundle = read_bundle(files[0][1])
    assert (bundle.key, bundle.signing_key) == (None, None)
    device.check(bundle, "test")
    device.install(bundle)
    return bundle


def verifier(device: Identity) -> Verifier:
    return Verifier(SigningConfig(key=str(device.signing_key), peers=str(device.peers)))


def coordinator(config: ServeConfig) -> Identity:
    return Identity(config.root / "coordinator", "coordinator")


def sign(config: ServeConfig, epoch: int) -> bytes:
    mine = coordinator(config)
    return Signer(SigningConfig(key=str(mine.signing_key), peers=str(mine.peers)), epoch).story(TOPIC, b'{"a":1}')


def hear(device: Verifier, said: bytes) -> None:
    device.story(TOPIC, said, "coordinator")


def test_between_the_steps_a_device_hears_the_key_in_use_and_after_them_the_next(
    config: ServeConfig, device: Identity, tmp_path: Path
) -> None:
    before = sign(config, 1)
    bundle = join(device, rekeying.prepare(config, tmp_path))
    assert len(parse_peers(bundle.peers)["coordinator"]) == 2
    hear(verifier(device), before)
    rekeying.switch(config)
    assert not coordinator(config).next_signing_key.exists()
    reader = verifier(device)
    hear(reader, sign(config, 2))
    with pytest.raises(PeerError, match="replayed"):
        hear(reader, before)


def test_the_next_file_of_a_device_forgets_the_earlier_key(
    config: ServeConfig, device: Identity, tmp_path: Path
) -> None:
    before = sign(config, 1)
    join(device, rekeying.prepare(config, tmp_path))
    rekeying.switch(config)
    join(device, [(name, path) for name, path in enrolment.renew(config, ["rpi1"], tmp_path) if path])
    hear(verifier(device), sign(config, 2))
    with pytest.raises(PeerError, match="forged"):
        hear(verifier(device), before)


def test_a_device_that_has_not_joined_hears_the_next_key_not_at_all(config: ServeConfig, device: Identity) -> None:
    rekeying.prepare(config, device.folder)
    rekeying.switch(config)
    with pytest.raises(PeerError, match="forged"):
        hear(verifier(device), sign(config, 2))


def test_preparing_again_makes_no_third_key_and_who_is_enrolled_meanwhile_trusts_both(
    config: ServeConfig, device: Identity, tmp_path: Path
) -> None:
    first = join(device, rekeying.prepare(config, tmp_path))
    assert join(device, rekeying.prepare(config, tmp_path)) == first
    late = read_bundle(enrolment.enroll(config, "rpi2", tmp_path))
    assert late.peers == first.peers
    assert [row.note for row in enrolment.listed(config) if row.role == "next signing key"] == ["prepared"]


def test_a_switch_that_was_cut_short_is_finished(config: ServeConfig, device: Identity, tmp_path: Path) -> None:
    join(device, rekeying.prepare(config, tmp_path))
    mine = coordinator(config)
    mine.next_signing_key.replace(mine.signing_key)  # and then the power went
    rekeying.switch(config)
    hear(verifier(device), sign(config, 2))
    assert register.load(config.authority_root).next_signing == ""


def test_a_switch_without_the_key_that_was_announced_is_refused(config: ServeConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fedpi-broker rekey"):
        rekeying.switch(config)
    rekeying.prepare(config, tmp_path)
    mine, before = coordinator(config), sign(config, 1)
    mine.next_signing_key.write_bytes(mine.signing_key.read_bytes())
    with pytest.raises(ConfigError, match="bring that one back"):
        rekeying.switch(config)
    mine.next_signing_key.write_bytes(mine.key.read_bytes())
    with pytest.raises(ConfigError, match="is damaged"):
        rekeying.switch(config)
    mine.next_signing_key.unlink()
    with pytest.raises(ConfigError, match="bring that one back"):
        rekeying.switch(config)
    assert sign(config, 1) == before


def test_after_a_theft_neither_key_is_worth_anything(config: ServeConfig, device: Identity, tmp_path: Path) -> None:
    mine, stolen = coordinator(config), sign(config, 1)
    certificate, key = x509.load_pem_x509_certificate(mine.certificate.read_bytes()), mine.key.read_bytes()
    rekeying.prepare(config, tmp_path)  # the thief may have that one, too
    coming = mine.next_signing_key.read_bytes()
    join(device, rekeying.replace_stolen(config, tmp_path))
    hear(verifier(device), sign(config, 1))
    with pytest.raises(PeerError, match="forged"):
        hear(verifier(device), stolen)
    assert mine.key.read_bytes() != key
    assert mine.signing_key.read_bytes() != coming
    assert not mine.next_signing_key.exists()
    listed = x509.load_pem_x509_crl((config.root / "revoked.crl").read_bytes())
    assert listed.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
    assert "user coordinator\ntopic deny" not in (config.root / "acl").read_text()
    assert {item.state for item in install.init(config)} == {"kept"}


def test_the_record_of_a_federation_that_replaces_nothing_is_what_earlier_versions_read(config: ServeConfig) -> None:
    record = msgspec.json.decode((config.authority_root / "register.json").read_bytes())
    assert "next_signing" not in record


@pytest.mark.parametrize(("mode", "said"), [([], "--switch"), (["--stolen"], "thief")])
def test_the_command_says_what_to_do_next(config: ServeConfig, device: Identity, mode: list[str], said: str) -> None:
    words = ["rekey", *mode, "--out", config.folder, "--to", str(device.folder)]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    assert "fedpi-device join rpi1.fedpi" in result.output.replace("\n", " ")
    assert said in result.output
