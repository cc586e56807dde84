"""What arrives at a coordinator whose devices sign, and what becomes of a device that is revoked."""

import base64
from pathlib import Path

import pytest

from broker.authority import new_signing_key
from common import topics
from common.config import SigningConfig
from common.errors import PeerError
from common.messages import Bye, CheckIn, Chunk, DeviceStatus, Hello, Takeover, encode, encode_story
from common.signing import Peers, Signer
from common.topics import Kind, topic
from coordinator import events
from coordinator.reception import Reception
from coordinator.store import Store
from tests.rounds import GENERATION, plan_of

SAY, UP, STATUS = (topic(kind, "demo", device="pi") for kind in (Kind.DEV_SAY, Kind.DEV_UP, Kind.DEV_STATUS))
PLAN = plan_of(5)
CHECK_IN = encode(CheckIn(device="pi", round=5, generation=GENERATION))
EPOCH = "cc"
HELLO = encode(Hello(device="pi", nonce="ab", epoch=EPOCH))
HERE = encode_story(DeviceStatus(device="pi", nonce="ab", state="online"))
THERE = DeviceStatus(device="pi", nonce="cd", state="online")


@pytest.fixture(autouse=True)
def _looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Peers, "LOOK_S", 0.0)


@pytest.fixture
def peers(tmp_path: Path) -> Path:
    return tmp_path / "peers"


@pytest.fixture
def signing(tmp_path: Path, peers: Path) -> SigningConfig:
    private, public = new_signing_key()
    (tmp_path / "key").write_text(private)
    peers.write_text(f"pi {base64.b64encode(public).decode()}\n")
    return SigningConfig(key=str(tmp_path / "key"), peers=str(peers))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "journal.sqlite", create=True)


@pytest.fixture
def reception(store: Store, signing: SigningConfig) -> Reception:
    return Reception("demo", store, signing, EPOCH)


def test_a_signed_device_is_heard_and_its_chunks_need_no_signature(
    reception: Reception, signing: SigningConfig
) -> None:
    signer = Signer(signing, epoch=1)
    reception.admit(topics.parse(SAY), signer.wire(SAY, HELLO), PLAN)
    arrival = reception.admit(topics.parse(SAY), signer.wire(SAY, CHECK_IN), PLAN)
    assert arrival.event == events.CheckedIn(device="pi")
    reception.admit(topics.parse(STATUS), signer.story(STATUS, HERE), PLAN)
    assert reception.present == {"pi"}
    chunk = Chunk(blob="0" * 64, index=0, data=b"x")
    assert reception.admit(topics.parse(UP), encode(chunk), PLAN).chunk == chunk


@pytest.mark.parametrize(("name", "payload"), [(SAY, CHECK_IN), (STATUS, HERE)])
def test_an_unsigned_device_is_refused_by_name(reception: Reception, name: str, payload: bytes) -> None:
    with pytest.raises(PeerError, match="pi does not sign"):
        reception.admit(topics.parse(name), payload, PLAN)
    assert reception.present == set()


def test_a_revoked_device_leaves_the_round_and_is_told_of(
    reception: Reception, signing: SigningConfig, peers: Path, store: Store
) -> None:
    signer = Signer(signing, epoch=1)
    reception.admit(topics.parse(STATUS), signer.story(STATUS, HERE), PLAN)
    assert reception.revoked() == []
    peers.write_text("# nobody\n")
    reason = "its keys were revoked"
    assert reception.revoked() == [events.Left(device="pi"), events.Failed(device="pi", reason=reason)]
    assert reception.revoked() == []
    assert reception.present == set()
    reception.flush()
    assert [(row.device, row.state, row.doing) for row in store.devices()] == [("pi", "offline", "revoked")]
    with pytest.raises(PeerError, match="pi is not enrolled here, or revoked"):
        reception.admit(topics.parse(SAY), signer.wire(SAY, CHECK_IN), PLAN)


def test_what_was_said_to_an_earlier_start_cannot_be_said_again_to_a_later_one(
    store: Store, signing: SigningConfig
) -> None:
    signer, where = Signer(signing, epoch=1), topics.parse(SAY)
    said = [signer.wire(SAY, message) for message in (HELLO, CHECK_IN)]
    later = Reception("demo", store, signing, "dd")
    later.admit(where, said[0], PLAN)  # a true Hello, to another start
    with pytest.raises(PeerError, match="pi has not said Hello to this start"):
        later.admit(where, said[1], PLAN)
    later.admit(where, signer.wire(SAY, encode(Hello(device="pi", nonce="ab", epoch="dd"))), PLAN)
    with pytest.raises(PeerError, match="replayed"):
        later.admit(where, said[1], PLAN)
    assert later.admit(where, signer.wire(SAY, CHECK_IN), PLAN).event == events.CheckedIn(device="pi")


def test_a_second_process_with_a_devices_keys_is_told_whichever_of_the_two_signs_with_the_earlier_epoch(
    reception: Reception, signing: SigningConfig
) -> None:
    earlier, later, where = Signer(signing, epoch=1), Signer(signing, epoch=2), topics.parse(SAY)
    reception.admit(where, earlier.wire(SAY, HELLO), PLAN)
    other = encode(Hello(device="pi", nonce="cd", epoch=EPOCH))
    told = Takeover(device="pi", nonce="ab", by="cd")
    assert reception.admit(where, later.wire(SAY, other), PLAN).takeover == told
    for payload in (earlier.wire(SAY, HELLO), earlier.wire(SAY, HELLO)):  # it lives: it answers
        assert reception.admit(where, payload, PLAN).takeover == told
    assert reception.admit(topics.parse(STATUS), earlier.story(STATUS, HERE), PLAN).takeover is None  # its own topic
    reception.admit(topics.parse(STATUS), later.story(STATUS, encode_story(THERE)), PLAN)
    assert reception.admit(topics.parse(STATUS), earlier.story(STATUS, HERE), PLAN).takeover == told
    assert reception.refused == 3


def test_a_process_that_is_not_heard_is_told_of_the_one_that_comes_after_it(
    reception: Reception, signing: SigningConfig
) -> None:
    """As of two machines that are switched on at once, when the one that is behind is connected first."""
    before, behind, later = (Signer(signing, epoch=epoch) for epoch in (3, 1, 4))
    where = topics.parse(SAY)
    reception.admit(where, before.wire(SAY, HELLO), PLAN)
    reception.admit(where, before.wire(SAY, encode(Bye(device="pi", nonce="ab"))), PLAN)
    other = encode(Hello(device="pi", nonce="ef", epoch=EPOCH))
    with pytest.raises(PeerError, match="replayed"):
        reception.admit(where, behind.wire(SAY, other), PLAN)
    told = Takeover(device="pi", nonce="ef", by="cd")
    hello = encode(Hello(device="pi", nonce="cd", epoch=EPOCH))
    assert reception.admit(where, later.wire(SAY, hello), PLAN).takeover == told
    assert reception.admit(where, behind.wire(SAY, other), PLAN).takeover == told  # it lives: it answers, and ends
    assert reception.admit(where, later.wire(SAY, hello), PLAN).takeover is None


def test_what_a_present_or_a_dead_connection_said_is_answered_by_nothing_that_ends_it(
    reception: Reception, signing: SigningConfig
) -> None:
    signer, where = Signer(signing, epoch=1), topics.parse(SAY)
    said = [signer.wire(SAY, message) for message in (HELLO, CHECK_IN)]
    for payload in said:
        reception.admit(where, payload, PLAN)
    for payload in said:  # a replay of the connection that the device has now: nobody is told anything
        with pytest.raises(PeerError, match="replayed"):
            reception.admit(where, payload, PLAN)
    reception.admit(where, signer.wire(SAY, encode(Hello(device="pi", nonce="cd", epoch=EPOCH))), PLAN)
    takeover = reception.admit(
        where, said[0], PLAN
    ).takeover  # a replay of one that it had: no connection has that nonce
    assert takeover is not None
    assert takeover.nonce == "ab"
    reception.admit(where, signer.wire(SAY, encode(Bye(device="pi", nonce="cd"))), PLAN)
    with pytest.raises(PeerError, match="replayed"):
        reception.admit(where, said[0], PLAN)
