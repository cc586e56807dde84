"""What is signed is heard once; what was forged, changed, moved or said before is refused, and by name."""

import base64
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from broker.authority import new_signing_key, private_pem
from common.config import SigningConfig
from common.epochs import next_epoch
from common.errors import ConfigError, PeerError
from common.messages import (
    CheckIn,
    CoordinatorStatus,
    DeviceStatus,
    Say,
    StoryEvent,
    decode,
    decode_story,
    encode,
    encode_story,
    unsigned,
)
from common.signing import Signer, Verifier
from common.yaml_text import dump
from coordinator.cli import main as coordinator

SEALED = (
    Ed25519PrivateKey.generate()
    .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"abcd"))
    .decode()
)
SAY, STATUS = "fedpi-wire/2/lab/dev/rpi1/say", "fedpi/2/lab/dev/rpi1/status"
Party = Callable[..., SigningConfig]


@pytest.fixture
def keys(tmp_path: Path) -> Party:
    """Write the keys of a party who trusts `trusted`; a name has the same key wherever it stands."""
    made: dict[str, tuple[str, bytes]] = {}

    def party(name: str, *trusted: str) -> SigningConfig:
        for who in (name, *trusted):
            made.setdefault(who, new_signing_key())
        key, peers = tmp_path / f"{name}.signing", tmp_path / f"{name}.peers"
        key.write_text(made[name][0])
        peers.write_text(
            "# trusted\n" + "".join(f"{who} {base64.b64encode(made[who][1]).decode()}\n" for who in trusted)
        )
        return SigningConfig(key=str(key), peers=str(peers))

    return party


def message(number: int = 3) -> bytes:
    return encode(CheckIn(device="rpi1", round=number, generation="aa"))


def status(state: str = "online", text: str = "rpi1 is here.") -> bytes:
    return encode_story(DeviceStatus(device="rpi1", nonce="ab", state=state, text=text))  # type: ignore[arg-type]


@pytest.fixture
def rpi1(keys: Party) -> Signer:
    return Signer(keys("rpi1", "coordinator"), epoch=7)


@pytest.fixture
def reader(keys: Party, rpi1: Signer) -> Verifier:  # noqa: ARG001 - rpi1's key must be there first
    return Verifier(keys("coordinator", "rpi1", "rpi2"))


def test_a_signed_message_and_a_signed_document_are_heard(rpi1: Signer, reader: Verifier) -> None:
    assert decode(reader.wire(SAY, rpi1.wire(SAY, message()), "rpi1"), Say) == CheckIn(
        device="rpi1", round=3, generation="aa"
    )
    assert reader.story(STATUS, rpi1.story(STATUS, status()), "rpi1") == status()


def test_a_reader_without_keys_takes_both_signed_documents_and_plain_ones(rpi1: Signer) -> None:
    signed = rpi1.story(STATUS, status())
    assert decode_story(signed, DeviceStatus) == decode_story(status(), DeviceStatus)
    assert Verifier(None).story(STATUS, signed, "rpi1") == status()
    assert Verifier(None).wire(SAY, message(), "rpi1") == message()


def test_without_keys_what_is_said_stays_as_it_is() -> None:
    assert Signer(None).wire(SAY, message()) == message()
    assert Signer(None).story(STATUS, status()) == Signer(None).will(STATUS, status()) == status()


def test_the_unsigned_is_refused_by_name(reader: Verifier) -> None:
    with pytest.raises(PeerError, match="rpi1 does not sign"):
        reader.wire(SAY, message(), "rpi1")
    with pytest.raises(PeerError, match="rpi1 does not sign"):
        reader.story(STATUS, status(), "rpi1")


def test_one_device_cannot_sign_as_another(rpi1: Signer, reader: Verifier) -> None:
    with pytest.raises(PeerError, match="not rpi2's signature"):
        reader.wire(SAY, rpi1.wire(SAY, message()), "rpi2")
    with pytest.raises(PeerError, match="not rpi2's signature"):
        reader.story(STATUS, rpi1.story(STATUS, status()), "rpi2")


def test_a_stranger_is_refused(rpi1: Signer, reader: Verifier) -> None:
    with pytest.raises(PeerError, match="rpi9 is not enrolled"):
        reader.wire(SAY, rpi1.wire(SAY, message()), "rpi9")


def test_a_message_cannot_be_moved_to_another_topic(rpi1: Signer, reader: Verifier) -> None:
    with pytest.raises(PeerError, match="forged"):
        reader.story(STATUS.replace("status", "event"), rpi1.story(STATUS, status()), "rpi1")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Signer, Verifier]:
    folder, (private, public) = tmp_path_factory.mktemp("pair"), new_signing_key()
    (folder / "key").write_text(private)
    (folder / "peers").write_text(f"rpi1 {base64.b64encode(public).decode()}")
    config = SigningConfig(key=str(folder / "key"), peers=str(folder / "peers"))
    return Signer(config, epoch=1), Verifier(config)


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_bit_of_a_signed_message_can_be_changed(pair: tuple[Signer, Verifier], at: int, bit: int) -> None:
    signer, reader = pair
    signed = bytearray(signer.story(STATUS, status()))
    signed[at % len(signed)] ^= 1 << bit
    with pytest.raises(PeerError):
        decode_story(reader.story(STATUS, bytes(signed), "rpi1"), DeviceStatus)


def test_a_command_counts_once(rpi1: Signer, reader: Verifier) -> None:
    first, second = rpi1.wire(SAY, message(3)), rpi1.wire(SAY, message(4))
    reader.wire(SAY, first, "rpi1")
    with pytest.raises(PeerError, match=r"replayed: rpi1 said 7\.1 when 7\.1 was heard"):
        reader.wire(SAY, first, "rpi1")
    reader.wire(SAY, second, "rpi1")
    with pytest.raises(PeerError, match="replayed"):
        reader.wire(SAY, first, "rpi1")


def test_a_retained_document_may_be_read_again_and_not_be_brought_back(rpi1: Signer, reader: Verifier) -> None:
    old, new = (rpi1.story(STATUS, status(text=text)) for text in ("old", "new"))
    reader.story(STATUS, old, "rpi1")
    reader.story(STATUS, new, "rpi1")
    assert reader.story(STATUS, new, "rpi1") == status(text="new")
    with pytest.raises(PeerError, match="replayed"):
        reader.story(STATUS, old, "rpi1")


def test_a_process_that_starts_again_is_heard_and_its_earlier_life_no_more(keys: Party, reader: Verifier) -> None:
    config = keys("rpi1", "coordinator")
    before, after = Signer(config, epoch=7), Signer(config, epoch=8)
    early = before.wire(SAY, message(1))
    reader.wire(SAY, before.wire(SAY, message(2)), "rpi1")
    reader.wire(SAY, after.wire(SAY, message(3)), "rpi1")
    with pytest.raises(PeerError, match="replayed"):
        reader.wire(SAY, early, "rpi1")


def test_a_will_is_heard_after_all_that_its_process_said_and_not_after_the_next_process(
    keys: Party, reader: Verifier
) -> None:
    config = keys("rpi1", "coordinator")
    signer = Signer(config, epoch=7)
    will = signer.will(STATUS, status("offline"))
    reader.story(STATUS, signer.story(STATUS, status()), "rpi1")
    assert reader.story(STATUS, will, "rpi1") == status("offline")
    reader.story(STATUS, Signer(config, epoch=8).story(STATUS, status()), "rpi1")
    with pytest.raises(PeerError, match="will of an earlier process"):
        reader.story(STATUS, will, "rpi1")


def test_the_sequence_of_a_will_is_for_wills_only(rpi1: Signer, reader: Verifier) -> None:
    rpi1._sequence = -1  # noqa: SLF001 - whoever has the key may sign so
    with pytest.raises(PeerError, match="rpi1 signs a message as a will"):
        reader.wire(SAY, rpi1.wire(SAY, message()), "rpi1")
    with pytest.raises(PeerError, match="rpi1 signs a document as a will"):
        reader.story(STATUS, rpi1.will(STATUS, status()), "rpi1")
    event = STATUS.replace("status", "event")
    with pytest.raises(PeerError, match="rpi1 signs a document as a will"):
        reader.story(event, rpi1.will(event, status("offline")), "rpi1")
    assert reader.story(STATUS, rpi1.will(STATUS, status("offline")), "rpi1")


def test_a_device_remembers_over_its_restarts_what_is_old(keys: Party, tmp_path: Path) -> None:
    coordinator, device = Signer(keys("coordinator", "rpi1"), epoch=3), keys("rpi1", "coordinator")
    old, new = (coordinator.story(STATUS, status(text=text)) for text in ("release 1", "release 2"))
    reader = Verifier(device, tmp_path / "heard.json")
    reader.story(STATUS, old, "coordinator")
    reader.story(STATUS, new, "coordinator")
    again = Verifier(device, tmp_path / "heard.json")
    with pytest.raises(PeerError, match="replayed"):
        again.story(STATUS, old, "coordinator")
    assert again.story(STATUS, new, "coordinator") == status(text="release 2")


def test_who_is_enrolled_again_is_heard_whatever_the_thief_of_its_name_said(
    tmp_path: Path, keys: Party, rpi1: Signer, reader: Verifier
) -> None:
    reader.wire(SAY, Signer(keys("rpi1"), epoch=10**15).wire(SAY, message()), "rpi1")
    with pytest.raises(PeerError, match="replayed"):
        reader.wire(SAY, rpi1.wire(SAY, message()), "rpi1")
    private, public = new_signing_key()
    (tmp_path / "rpi1.signing").write_text(private)
    (tmp_path / "coordinator.peers").write_text(f"rpi1 {base64.b64encode(public).decode()}\n")
    assert reader.peers is not None
    reader.peers.look()
    again = Signer(SigningConfig(key=str(tmp_path / "rpi1.signing"), peers=""), epoch=7)
    assert reader.wire(SAY, again.wire(SAY, message()), "rpi1") == message()


def test_who_is_struck_from_the_list_is_refused_at_once(keys: Party, rpi1: Signer, reader: Verifier) -> None:
    reader.wire(SAY, rpi1.wire(SAY, message()), "rpi1")
    keys("coordinator", "rpi2")
    assert reader.peers is not None
    reader.peers.look()
    assert reader.peers.take_dropped() == {"rpi1"}
    assert reader.peers.take_dropped() == set()
    with pytest.raises(PeerError, match="revoked"):
        reader.wire(SAY, rpi1.wire(SAY, message()), "rpi1")


@given(st.text(max_size=100))
def test_no_text_of_a_peer_passes_for_a_signature(text: str) -> None:
    for told in (text, f'{text}","signature":"1.2.x"}}', f'",signature":"{text}'):
        document = encode_story(StoryEvent(event="x", text=told[:500]))
        assert unsigned(document) == (document, "")


def test_epochs_grow_also_when_the_clock_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "epoch"
    monkeypatch.setattr("time.time", lambda: 1000.5)
    assert next_epoch(path) == 1000
    monkeypatch.setattr("time.time", lambda: 5.0)
    assert [next_epoch(path), next_epoch(path)] == [1001, 1002]


@pytest.mark.parametrize("kept", ["", "x", "9" * 30, "-4"])
def test_an_epoch_that_is_lost_or_damaged_begins_at_the_clock(tmp_path: Path, kept: str) -> None:
    (tmp_path / "epoch").write_text(kept)
    before = int(time.time())
    assert before <= next_epoch(tmp_path / "epoch") <= before + 60


def test_an_epoch_that_cannot_be_kept_counts_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "epoch").write_text("99999999999")
    (tmp_path / ".epoch.tmp").mkdir()  # nothing can be written beside it
    assert next_epoch(tmp_path / "epoch") == 100_000_000_000


def test_a_coordinator_whose_clock_was_in_the_future_is_heard_again_after_one_command(
    keys: Party, tmp_path: Path
) -> None:
    config, state = keys("coordinator", "rpi1"), tmp_path / "state"
    reader = Verifier(keys("rpi1", "coordinator"), tmp_path / "heard.json")
    reader.story(STATUS, Signer(config, 2_079_950_000).story(STATUS, status()), "coordinator")

    def start() -> bytes:
        return Signer(config, next_epoch(state / "epoch")).story(STATUS, status(text="new"))

    with pytest.raises(PeerError, match=r"when 2079950000\.1 was heard before"):
        reader.story(STATUS, start(), "coordinator")
    file = tmp_path / "coordinator.yaml"
    signing = {"key": config.key, "peers": config.peers}
    file.write_text(dump({"federation": "lab", "state": str(state), "signing": signing, "model": {"name": "numpy"}}))
    for heard, code in (("10000000000000000", 78), ("-1", 78), ("2079950000", 0), ("5", 0)):
        result = CliRunner().invoke(coordinator, ["raise-epoch", "--config", str(file), "--", heard])
        assert result.exit_code == code, result.output
    assert reader.story(STATUS, start(), "coordinator") == status(text="new")


def test_what_was_heard_is_on_the_disk_before_its_file_is_replaced(
    keys: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append("synced")
        sync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        done.append("replaced")
        return replace(self, target)

    monkeypatch.setattr("os.fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    coordinator = Signer(keys("coordinator", "rpi1"), epoch=3)
    Verifier(keys("rpi1", "coordinator"), tmp_path / "heard.json").story(
        STATUS, coordinator.story(STATUS, status()), "coordinator"
    )
    assert done == ["synced", "replaced", "synced"]  # the content, the name, the folder


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("key", "x", "no private key"),
        ("key", SEALED, "is encrypted; decrypt it"),
        ("peers", "rpi1 @@", "peers"),
        ("peers", "rpi1", "a name and a key"),
    ],
)
def test_a_damaged_file_is_named(keys: Party, name: str, content: str, said: str) -> None:
    config = keys("coordinator", "rpi1")
    Path(getattr(config, name)).write_text(content)
    with pytest.raises(ConfigError, match=said):
        Signer(config), Verifier(config)


def test_the_worked_signatures_of_the_protocol_are_what_the_code_makes(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| .* \| `(.*)` \|$", text.partition("### Worked signatures")[2].partition("\n## ")[0], re.MULTILINE
    )
    key = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
    (tmp_path / "key").write_text(private_pem(key))
    signer = Signer(SigningConfig(key=str(tmp_path / "key"), peers=""), epoch=5)
    where, status = "fedpi/2/lab/coord/status", {"federation": "lab", "epoch": "0a"}
    here, gone = (CoordinatorStatus(**status, state=state) for state in ("online", "offline"))  # type: ignore[arg-type]
    assert rows == [
        key.public_key().public_bytes_raw().hex(),
        signer.wire(SAY, message(3)).hex(),
        signer.story(where, encode_story(here)).decode(),
        signer.will(where, encode_story(gone)).decode(),
    ]
