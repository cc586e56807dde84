"""Attacks on a live federation behind TLS: each is refused, with the reason in a log, and rounds go on."""

import datetime as dt
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from broker import authority as authorities
from broker import enrolment
from broker.connection import Connection
from common.config import BrokerConfig, SigningConfig, TlsConfig, convert
from common.errors import ConfigError, LinkError
from common.inbox import Inbox
from common.link import Down, Link
from common.messages import (
    CoordinatorStatus,
    DeviceStatus,
    Failed,
    Ref,
    ReleaseStatus,
    RoundStatus,
    Story,
    Want,
    encode,
    encode_story,
)
from common.signing import Signer
from common.tls import context
from common.topics import Kind, topic
from coordinator.rehearsal.federation import FEDERATION
from tests.system.conftest import WAIT_S
from tests.system.secured import SecuredFederation

pytestmark = pytest.mark.system

QUIET_S = 0.3
BURST = 1000
SECONDS = 5.0
EVIL = Ref(id="ab" * 32, head_bytes=1, size=1, chunk_bytes=4096)


def name(kind: Kind, device: str = "rpi1") -> str:
    return topic(kind, FEDERATION, device=device, blob="ab" * 32)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredFederation]:
    with SecuredFederation(tmp_path_factory.mktemp("attacks"), {"rpi1": 7, "rpi2": 5}) as running:
        yield running.go()


@pytest.fixture(autouse=True)
def _undisturbed(live: SecuredFederation) -> Iterator[None]:
    """After every attack a round with both devices gives the very model that it must give."""
    yield
    number, base = live.store.last_round() + 1, live.model()
    (row,) = live.run()
    assert row.phase == "committed"
    assert row.reported == ("rpi1", "rpi2")
    assert live.model() == live.expect(base, number)


@pytest.fixture(scope="module")
def rogue(live: SecuredFederation) -> dict[str, Any]:
    """Return what an enrolled device holds that does not keep to the rules."""
    return live.identity("rogue")


@pytest.fixture
def as_rogue(live: SecuredFederation, rogue: dict[str, Any]) -> Iterator[Connection]:
    with live.log_in(rogue["broker"], "any-name") as connection:
        yield connection


@pytest.fixture
def as_broker(live: SecuredFederation) -> Iterator[Connection]:
    """Return somebody who may publish anything, as who holds the broker may: but he cannot sign."""
    with live.log_in(live.coordinator["broker"], "the-broker-itself") as connection:
        yield connection


def until_refused(live: SecuredFederation, victim: str, text: str, attack: Callable[[], object]) -> None:
    """Attack until the victim's log, which tells of one refusal a second, tells of this one."""

    def is_told() -> bool:
        attack()
        return text in live.log(victim)

    live.until(is_told, f"{victim} did not log {text!r}")


# ---- at the door ----------------------------------------------------------------------------


def refuse_at_the_door(live: SecuredFederation, tls: dict[str, Any], reason: str) -> None:
    broker = {**live.coordinator["broker"], "tls": tls}
    before = len(live.log("broker"))
    with pytest.raises(LinkError), live.log_in(broker, "stranger"):
        pass
    live.until(lambda: reason in live.log("broker")[before:], f"Mosquitto did not log {reason!r}")


def forge(live: SecuredFederation, folder: Path, authority: authorities.Authority, days: int) -> dict[str, Any]:
    """Make a certificate for rpi1's name."""
    key, now = authorities.new_key(), dt.datetime.now(dt.UTC)
    issued = authorities.issue_client(authority, "rpi1", key.public_key(), now + dt.timedelta(days=days), now)
    (folder / "crt").write_text(issued)
    (folder / "key").write_text(authorities.private_pem(key))
    ca = live.coordinator["broker"]["tls"]["ca"]
    return {"ca": ca, "certificate": str(folder / "crt"), "key": str(folder / "key")}


def test_nobody_enters_without_a_certificate(live: SecuredFederation) -> None:
    refuse_at_the_door(live, {"ca": live.coordinator["broker"]["tls"]["ca"]}, "peer did not return a certificate")


def test_nobody_enters_by_another_authority(live: SecuredFederation, tmp_path: Path) -> None:
    other = authorities.create(FEDERATION, dt.datetime.now(dt.UTC))
    refuse_at_the_door(live, forge(live, tmp_path, other, 10), "certificate verify failed")


def test_nobody_enters_by_a_certificate_that_has_ended(live: SecuredFederation, tmp_path: Path) -> None:
    root = live.config_of_broker.authority_root
    ours = authorities.read((root / "ca.crt").read_bytes(), (root / "ca.key").read_bytes())
    with live.log_in({**live.coordinator["broker"], "tls": forge(live, tmp_path, ours, 1)}, "still-good"):
        pass
    refuse_at_the_door(live, forge(live, tmp_path, ours, -1), "certificate verify failed")


def test_a_device_takes_no_broker_of_another_authority_or_of_another_name(
    live: SecuredFederation, rogue: dict[str, Any], tmp_path: Path
) -> None:
    other = authorities.create(FEDERATION, dt.datetime.now(dt.UTC))
    (tmp_path / "ca").write_text(other.pem)
    tls = {**rogue["broker"]["tls"], "ca": str(tmp_path / "ca")}
    with pytest.raises(LinkError, match="CERTIFICATE_VERIFY_FAILED"), live.log_in({**rogue["broker"], "tls": tls}, "x"):
        pass
    ours = context(convert(rogue["broker"]["tls"], TlsConfig, "test"))
    with socket.create_connection(("127.0.0.1", live.port)) as line, pytest.raises(ssl.SSLError, match="mismatch"):
        ours.wrap_socket(line, server_hostname="elsewhere.example")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")  # old on purpose
def test_tls_cannot_be_talked_down(live: SecuredFederation) -> None:
    old = ssl.create_default_context(cafile=live.coordinator["broker"]["tls"]["ca"])
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", live.port)) as line,
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
    ):
        old.wrap_socket(line, server_hostname="127.0.0.1")
    live.until(lambda: "unsupported protocol" in live.log("broker"), "Mosquitto did not log the protocol")


def test_a_revoked_device_is_shut_out_at_once_while_it_is_connected(live: SecuredFederation) -> None:
    stolen = live.identity("stolen")
    where = name(Kind.DEV_STATUS, "stolen")
    signer = Signer(SigningConfig(**stolen["signing"]), epoch=1)
    with live.log_in(stolen["broker"], "stolen") as connection:
        connection.subscribe(name(Kind.COORD_ROUND))
        assert connection.receive(WAIT_S) is not None
        status = encode_story(DeviceStatus(device="stolen", nonce="ab", state="online"))

        def is_heard() -> bool:  # as soon as the coordinator has looked who is enrolled
            connection.publish(where, signer.story(where, status))
            return live.states().get("stolen") == "online"

        live.until(is_heard, "it was not heard")
        begun = time.monotonic()
        enrolment.revoke(live.config_of_broker, "stolen")
        live.until(lambda: is_denied(connection, where), "it may still publish")
        live.until(lambda: live.states()["stolen"] == "offline", "it is still present")
        assert time.monotonic() - begun < SECONDS
        connection.collect(1000, QUIET_S, 5.0)
        live.run()
        assert connection.receive(QUIET_S) is None, "it may still read"
    refuse_at_the_door(live, stolen["broker"]["tls"], "certificate verify failed")
    inbox = Inbox()
    link = Link("stolen", "stolen", convert(stolen["broker"], BrokerConfig, "test"), inbox)
    link.start()
    assert isinstance(inbox.get(SECONDS), Down), "the device itself is not told"
    link.stop()
    live.until_logged("coordinator", "device=stolen is revoked")


def is_denied(connection: Connection, where: str) -> bool:
    try:
        connection.publish(where, b"{}")
    except ConfigError:
        return True
    return False


# ---- inside ---------------------------------------------------------------------------------


def test_a_device_has_no_part_in_another_ones_branch(live: SecuredFederation, as_rogue: Connection) -> None:
    as_rogue.subscribe("#")
    for kind in (Kind.DEV_STATUS, Kind.DEV_EVENT, Kind.DEV_PREDICTION, Kind.DEV_SAY, Kind.DEV_UP, Kind.DEV_CMD):
        assert is_denied(as_rogue, name(kind, "rpi1"))
    for kind in (Kind.COORD_STATUS, Kind.COORD_ROUND, Kind.COORD_RELEASE, Kind.BLOB):
        assert is_denied(as_rogue, name(kind))
    live.run()
    heard = {message.topic for message in as_rogue.collect(1000, QUIET_S, 5.0)}
    assert heard
    assert not {where for where in heard if "/dev/" in where}


def test_a_device_cannot_sign_as_another(live: SecuredFederation, rogue: dict[str, Any], as_broker: Connection) -> None:
    """It cannot even with a broker that lets it past the access rules."""
    signer, where = Signer(SigningConfig(**rogue["signing"]), epoch=2**33), name(Kind.DEV_SAY, "rpi1")
    lie = encode(Failed(device="rpi1", round=live.store.last_round() + 1, generation="ab", reason="a lie"))
    until_refused(
        live,
        "coordinator",
        "forged: this is not rpi1's signature",
        lambda: as_broker.publish(where, signer.wire(where, lie)),
    )
    until_refused(live, "coordinator", "rpi1 does not sign", lambda: as_broker.publish(where, lie))


@pytest.mark.parametrize(
    ("kind", "lie"),
    [
        (Kind.COORD_STATUS, CoordinatorStatus(federation=FEDERATION, epoch="ab", state="online")),
        (Kind.COORD_ROUND, RoundStatus(epoch="ab", round=10**6, phase="selecting", model=EVIL)),
        (Kind.COORD_RELEASE, ReleaseStatus(release="evil", model=EVIL, labels=("a", "b"), round=1)),
    ],
)
def test_nobody_but_the_coordinator_states_its_status_its_rounds_and_its_releases(
    live: SecuredFederation, rogue: dict[str, Any], as_broker: Connection, kind: Kind, lie: Story
) -> None:
    signer, where, document = Signer(SigningConfig(**rogue["signing"]), epoch=2**33), name(kind), encode_story(lie)
    until_refused(live, "rpi1", f"topic={where} coordinator does not sign", lambda: as_broker.publish(where, document))
    until_refused(
        live,
        "rpi1",
        f"topic={where} forged: this is not coordinator's signature",
        lambda: as_broker.publish(where, signer.story(where, document)),
    )
    assert {row.release for row in live.store.devices()} == {""}


def test_what_was_said_before_is_not_heard_again(live: SecuredFederation, as_broker: Connection) -> None:
    where = {
        "rpi1": (name(Kind.COORD_ROUND), name(Kind.DEV_CMD)),
        "coordinator": (name(Kind.DEV_SAY),),
    }
    for topics in where.values():
        for one in topics:
            as_broker.subscribe(one)
    live.run()
    heard = as_broker.collect(1000, QUIET_S, 5.0)
    for victim, topics in where.items():
        for one in topics:
            first = next(message.payload for message in heard if message.topic == one and not message.is_retained)
            until_refused(
                live,
                victim,
                f"topic={one} replayed",
                lambda t=one, p=first: as_broker.publish(t, p),  # type: ignore[misc]
            )


def test_the_monitor_reads_the_story_and_says_nothing(live: SecuredFederation) -> None:
    with live.log_in(live.identity("monitor")["broker"], "monitor") as monitor:
        monitor.subscribe("#")
        live.run()
        roots = {message.topic.partition("/")[0] for message in monitor.collect(1000, QUIET_S, 5.0)}
        assert roots == {"fedpi"}
        for kind in (Kind.COORD_ROUND, Kind.DEV_EVENT, Kind.DEV_SAY):
            assert is_denied(monitor, name(kind, "monitor"))


# ---- by force -------------------------------------------------------------------------------


def test_a_burst_of_connections_leaves_the_federation_alone(live: SecuredFederation) -> None:
    lines = [socket.create_connection(("127.0.0.1", live.port), 10.0) for _ in range(BURST)]
    try:
        live.run()
        for line in lines[::10]:
            line.sendall(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")  # in clear, where TLS is asked for
        live.run()
    finally:
        for line in lines:
            line.close()
    live.until(lambda: "http request" in live.log("broker") or "wrong version number" in live.log("broker"), "no log")


def test_nobody_can_take_over_a_connection_without_its_name(live: SecuredFederation, rogue: dict[str, Any]) -> None:
    before = live.log("broker").count("already connected, closing old connection")
    for guess in ("coord-control", "coord-bulk", "dev-rpi1-control", "dev-rpi1-bulk"):
        with live.log_in(rogue["broker"], f"fedpi-{FEDERATION}-{guess}"):
            pass
    assert live.log("broker").count("already connected, closing old connection") == before


def test_a_packet_that_is_too_large_costs_its_sender_the_connection(
    live: SecuredFederation, as_rogue: Connection
) -> None:
    as_rogue.send(name(Kind.DEV_UP, "rogue"), bytes(2**21))
    live.until(lambda: as_rogue.is_closed, "the connection stayed open")
    live.until(lambda: "oversize packet" in live.log("broker"), "Mosquitto did not log it")


def test_messages_that_are_no_messages_are_dropped(
    live: SecuredFederation, rogue: dict[str, Any], as_rogue: Connection
) -> None:
    signer, where = Signer(SigningConfig(**rogue["signing"]), epoch=2**33), name(Kind.DEV_SAY, "rogue")
    late = encode(Failed(device="rogue", round=10**6, generation="ab", reason="late"))
    until_refused(
        live,
        "coordinator",
        "rogue has not said Hello to this start",
        lambda: as_rogue.publish(where, signer.wire(where, late)),
    )
    stranger = encode(Want(device="rpi1", blob="ab" * 32, chunks=b""))
    until_refused(
        live, "coordinator", "rogue speaks as rpi1", lambda: as_rogue.publish(where, signer.wire(where, stranger))
    )
