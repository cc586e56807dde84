"""What systemd hears of real processes: ready without a broker, and a watchdog that only a turning loop feeds."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.system

BROKER = {"host": "127.0.0.1", "port": 9}  # nobody listens there
DEVICE = {"federation": "ready", "device": "rpi1", "broker": BROKER}
COORDINATOR = {
    "federation": "ready",
    "broker": BROKER,
    "model": {"name": "numpy"},
    "initial": {"source": "random"},
    "round": {"goal": 1, "minimum": 1},
}
COMMANDS = {
    "device": ("device", "run", DEVICE),
    "inference": ("device", "serve", DEVICE),
    "coordinator": ("coordinator", "serve", COORDINATOR),
}
WATCHDOG_S = 0.8


@contextmanager
def started(name: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    """Start the process as its unit does, with ourselves in systemd's place."""
    package, command, document = COMMANDS[name]
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**document, "state": str(folder / "state")}), encoding="utf-8")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(folder / "notify"))
        systemd.settimeout(20)
        told = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": str(int(WATCHDOG_S * 1e6))}
        words = [sys.executable, "-m", package, command, "--config", str(path)]
        process = subprocess.Popen(words, env={**os.environ, **told})
        try:
            yield process, systemd
        finally:
            process.kill()
            process.wait()


def heard_within(systemd: socket.socket, seconds: float) -> str:
    lines, end = "", time.monotonic() + seconds
    systemd.settimeout(seconds)
    while time.monotonic() < end:
        try:
            lines += systemd.recv(4096).decode() + "\n"
        except TimeoutError:
            break
    return lines


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_process_is_ready_without_a_broker_and_its_loop_feeds_the_watchdog(name: str, tmp_path: Path) -> None:
    with started(name, tmp_path) as (process, systemd):
        first = systemd.recv(4096).decode().split("\n")
        assert first[0] == "READY=1"
        assert first[1].startswith("STATUS=")
        assert "WATCHDOG=1" in heard_within(systemd, WATCHDOG_S)
        process.send_signal(signal.SIGSTOP)
        heard_within(systemd, 0.1)  # what was under way
        assert heard_within(systemd, WATCHDOG_S) == ""
        process.send_signal(signal.SIGCONT)
        process.terminate()
        assert "STOPPING=1" in heard_within(systemd, 1.0)
        assert process.wait(10) == 0
