"""More devices offer updates than have a place, and most of them never send a byte, as behind a dead switch."""

from pathlib import Path

import pytest

from coordinator.collector import LEAST_WINDOW
from coordinator.rehearsal.federation import FEDERATION, Process
from tests.system.conftest import LiveFederation

pytestmark = pytest.mark.system

CREDIT = 8
MUTE = 2 * CREDIT // LEAST_WINDOW
"""Twice as many as there are places."""
MUTE_DEVICES = """
import sys
from device import light
light.LightDevice._send = lambda *_: None
light.serve(sys.argv[1], int(sys.argv[2]), {count})
"""


def test_devices_that_offer_and_never_send_block_nobody(tmp_path: Path) -> None:
    sleepy = {"tensors": 7, "parameters": 5000, "sleep_s": 1.0}  # so that those that never send are first
    with LiveFederation(tmp_path, {"rpi1": 7}) as live:
        transfer, round_ = {"credit_chunks": CREDIT, "repair_s": 0.5}, {"goal": MUTE + 1, "minimum": MUTE + 1}
        live.begin("mosquitto", sleepy, transfer=transfer, round=round_)
        mute = ["-c", MUTE_DEVICES.format(count=MUTE), FEDERATION, str(live.port)]
        live.processes["mute"] = Process("mute", mute, tmp_path / "mute.log")
        live.wait_for_devices(live.store, MUTE + 1)
        number = live.ask()
        live.until_logged("coordinator", "rpi1 delivered its update")
        assert "is silent: its upload gives up its place" in live.log("coordinator")
        assert live.phase(number) == "reporting"
