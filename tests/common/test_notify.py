"""What systemd hears from a loop."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.notify import Pulse


class Systemd:
    """The other end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        lines = []
        while True:
            try:
                lines += self._socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return lines

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    end = Systemd(str(tmp_path / "notify") if request.param == "path" else f"@fedpi-test-{os.getpid()}")
    yield end
    end.close()


def pulse(systemd: Systemd, **more: str) -> Pulse:
    return Pulse({"NOTIFY_SOCKET": systemd.address, **more})


def test_the_first_turn_of_the_loop_makes_the_unit_ready(systemd: Systemd) -> None:
    line = pulse(systemd)
    assert systemd.heard() == []
    line.beat(1.0, "waiting")
    assert systemd.heard() == ["READY=1", "STATUS=waiting"]


def test_a_status_is_told_when_it_changes_and_in_one_line(systemd: Systemd) -> None:
    line = pulse(systemd)
    line.beat(1.0, "waiting")
    line.beat(1.1, "waiting")
    line.beat(1.2, "training\nMAINPID=1")
    assert systemd.heard()[2:] == ["STATUS=training MAINPID=1"]


def test_the_watchdog_is_fed_four_times_an_interval_and_only_while_the_loop_turns(systemd: Systemd) -> None:
    line = pulse(systemd, WATCHDOG_USEC="8000000", WATCHDOG_PID=str(os.getpid()))
    for tenth in range(100):
        line.beat(tenth / 10, "waiting")
    assert systemd.heard().count("WATCHDOG=1") == 5  # at 0, 2, 4, 6 and 8 seconds
    assert systemd.heard() == []  # nothing feeds it behind the loop's back


def test_the_watchdog_of_another_process_is_left_alone(systemd: Systemd) -> None:
    line = pulse(systemd, WATCHDOG_USEC="8000000", WATCHDOG_PID="1")
    line.beat(1.0, "waiting")
    assert "WATCHDOG=1" not in systemd.heard()


def test_a_child_does_not_inherit_the_line() -> None:
    environment = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Pulse(environment)
    assert environment == {"PATH": "/bin"}


def test_the_end_is_told(systemd: Systemd) -> None:
    pulse(systemd).stopping()
    assert systemd.heard() == ["STOPPING=1"]


def test_a_systemd_that_does_not_listen_stops_nothing(tmp_path: Path) -> None:
    Pulse({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).beat(1.0, "waiting")


def test_outside_of_a_unit_nothing_is_told() -> None:
    line = Pulse({})
    line.beat(1.0, "waiting")
    line.stopping()
