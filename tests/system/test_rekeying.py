"""A live federation whose coordinator gets another signing key: in step with the devices, or after a theft."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import rekeying
from broker.connection import Connection
from common.bundle import Identity, read_bundle
from common.config import SigningConfig
from common.messages import CoordinatorStatus, RoundStatus, decode_story, encode_story, unsigned
from common.signing import Signer
from common.topics import Kind, topic
from coordinator.rehearsal.federation import FEDERATION
from tests.system.secured import SecuredFederation

pytestmark = pytest.mark.system

STATUS, ROUND = topic(Kind.COORD_STATUS, FEDERATION), topic(Kind.COORD_ROUND, FEDERATION)
QUIET_S = 0.3


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredFederation]:
    with SecuredFederation(tmp_path_factory.mktemp("rekeying"), {"rpi1": 7, "rpi2": 5}) as running:
        yield running.go()


@pytest.fixture
def as_broker(live: SecuredFederation) -> Iterator[Connection]:
    """Return somebody who may publish anything, but has no key of the coordinator's."""
    with live.log_in(live.coordinator["broker"], "the-broker-itself") as connection:
        yield connection


def join(live: SecuredFederation, files: list[tuple[str, Path]]) -> None:
    """Install the devices' files while the devices run."""
    for name, path in files:
        Identity(live.folder / "etc" / name, "device").install(read_bundle(path))


def commit(live: SecuredFederation) -> None:
    (row,) = live.run()
    assert (row.phase, row.reported) == ("committed", ("rpi1", "rpi2"))


def start_anew(live: SecuredFederation) -> None:
    """Stop the coordinator, which the keys are for, and start it again."""
    live.processes.pop("coordinator").stop()
    live.start_coordinator()


def test_rounds_go_on_while_the_key_is_replaced_and_the_earlier_one_speaks_no_more(
    live: SecuredFederation, as_broker: Connection
) -> None:
    commit(live)
    as_broker.subscribe(ROUND)
    retained = as_broker.collect(1, QUIET_S, 5.0)[0].payload
    assert decode_story(unsigned(retained)[0], RoundStatus).round == 1
    join(live, rekeying.prepare(live.config_of_broker, live.folder))
    commit(live)
    rekeying.switch(live.config_of_broker)
    start_anew(live)
    live.wait_for_devices(live.store, 2)
    commit(live)

    def is_refused() -> bool:
        as_broker.publish(ROUND, retained)
        return f"topic={ROUND} replayed" in live.log("rpi1")

    live.until(is_refused, "rpi1 takes what the earlier key signed")
    assert not [name for name in ("rpi1", "rpi2") if "forged" in live.log(name)]
    commit(live)


def test_after_a_theft_devices_that_have_joined_obey_the_new_key_alone(live: SecuredFederation, tmp_path: Path) -> None:
    mine = Identity(live.config_of_broker.root / "coordinator", "coordinator")
    (tmp_path / "stolen").write_bytes(mine.signing_key.read_bytes())
    before = {name: len(live.log(name)) for name in ("rpi1", "rpi2")}
    files = rekeying.replace_stolen(live.config_of_broker, live.folder)
    start_anew(live)
    for name, length in before.items():
        live.until(lambda n=name, at=length: "forged" in live.log(n)[at:], f"{name} takes a key that it was not told")  # type: ignore[misc]
    join(live, files)
    live.wait_for_devices(live.store, 2)
    commit(live)
    thief = Signer(SigningConfig(key=str(tmp_path / "stolen"), peers=str(mine.peers)), epoch=2**33)
    lie = encode_story(CoordinatorStatus(federation=FEDERATION, epoch="ab", state="online"))
    with live.log_in(live.coordinator["broker"], "the-thief-at-the-broker") as connection:
        at = len(live.log("rpi1"))

        def is_refused() -> bool:
            connection.publish(STATUS, thief.story(STATUS, lie))
            return f"topic={STATUS} forged" in live.log("rpi1")[at:]

        live.until(is_refused, "rpi1 takes what the thief signed")
    commit(live)
