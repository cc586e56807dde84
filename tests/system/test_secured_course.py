"""A secured federation over restarts, and a device that is revoked in the middle of a round."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from broker import enrolment
from coordinator.joining import join
from tests.system.conftest import WAIT_S
from tests.system.secured import SecuredFederation

pytestmark = pytest.mark.system

SLEEP_S = 4.0


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredFederation]:
    with SecuredFederation(tmp_path_factory.mktemp("secured"), {"rpi1": 7, "rpi2": 5}) as running:
        options = {"goal": 2, "minimum": 1, "deadline_s": 60}
        yield running.begin("mosquitto", model={"sleep_s": SLEEP_S}, round=options)


def test_everybody_is_heard_again_after_restarts(live: SecuredFederation) -> None:
    for name in ("rpi1", "coordinator", "broker"):
        live.processes.pop(name).stop()
    live.start_broker("mosquitto")
    live.start_coordinator()
    live.start_device("rpi1")
    live.until(lambda: live.log("rpi1").count("link=control up") >= 2, "rpi1 did not come back")
    live.wait_for_devices(live.store, 2)
    base = live.model()
    (row,) = live.run()
    assert row.reported == ("rpi1", "rpi2")
    assert live.model() == live.expect(base, 1)
    for name in ("rpi1", "rpi2", "coordinator"):
        assert "forged" not in live.log(name)


def test_a_monitor_watches_from_anywhere(live: SecuredFederation) -> None:
    config = join(enrolment.enroll(live.config_of_broker, "monitor", live.folder), live.folder / "anywhere")
    line = [sys.executable, "-m", "coordinator", "watch", "--config", str(config), "--seconds", "2", "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=live.environment, timeout=WAIT_S)
    told = {json.loads(row)["topic"].rpartition("/dev/")[2] for row in done.stdout.splitlines()}
    assert {"fedpi/2/rehearsal/coord/status", "fedpi/2/rehearsal/coord/round", "rpi1/status", "rpi2/status"} <= told


def test_a_device_that_is_revoked_while_it_trains_is_out_and_nobody_waits_for_it(live: SecuredFederation) -> None:
    base, number = live.model(), live.ask()
    live.until(lambda: live.trainings("rpi2", number) == 1, "rpi2 did not train")
    begun = time.monotonic()
    enrolment.revoke(live.config_of_broker, "rpi2")
    live.until(lambda: live.states()["rpi2"] == "offline", "rpi2 is still present")
    assert time.monotonic() - begun < SLEEP_S
    live.finish(number)
    assert time.monotonic() - begun < 3 * SLEEP_S, "somebody waited for rpi2"
    ledger = live.ledger(number)
    assert ledger["rpi1"].standing == "reported"
    assert (ledger["rpi2"].standing, ledger["rpi2"].reason) == ("failed", "its keys were revoked")
    assert live.model() == live.expect(base, number, "rpi1")
    live.until_logged("rpi2", "publish refused: Not authorized")
