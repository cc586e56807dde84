"""A device's line stalls in the middle of its update, and no connection breaks."""

import time
from pathlib import Path

import pytest

from common.topics import Kind, topic
from coordinator.rehearsal.federation import FEDERATION
from tests.conftest import find_ports
from tests.faults.passing import Way, carries
from tests.faults.proxy import Line, Proxy
from tests.system.conftest import WAIT_S, LiveFederation

pytestmark = pytest.mark.system

STALL_S = 2.5
TRANSFER = {"chunk_bytes": 8192, "repair_s": 0.5, "repair_max_s": 1.0}
"""Patience is over several times within the stall: with fedpi's own timers a stall of 20 s does the same."""
MODEL = {"tensors": 7, "parameters": 40_000, "work": "noise"}


def test_what_waits_in_a_stalled_connection_is_not_sent_again(tmp_path: Path) -> None:
    with LiveFederation(tmp_path, {"rpi1": 7}) as live:
        proxy = Proxy(live.port, find_ports(1))
        proxy.start()
        try:
            broker = {"host": "127.0.0.1", "port": proxy.port}
            live.begin("mosquitto", MODEL, {"rpi1": {"broker": broker}}, transfer=TRANSFER)
            proxy.line("rpi1", Line(bytes_per_s=100_000.0))
            middle = proxy.watch(carries(Kind.DEV_UP, Way.UP, "rpi1"), 5)
            first = live.ask()
            assert middle.came.wait(WAIT_S)
            proxy.hole("rpi1")
            time.sleep(STALL_S)
            proxy.lift("rpi1")
            (row,) = live.finish(first)
            assert row.phase == "committed"
            assert " down: " not in live.log("rpi1")
            assert proxy.tally.resent[topic(Kind.DEV_UP, FEDERATION, device="rpi1")] == 0
        finally:
            proxy.stop()
