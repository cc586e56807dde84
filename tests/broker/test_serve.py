"""`fedpi-broker run` as a process: ready, stopped, killed, refused."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker import install
from broker.connection import Connection, Session
from broker.settings import ServeConfig
from common.config import BrokerConfig

Run = Callable[..., "subprocess.Popen[str]"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    processes = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", "from broker.cli import main; main()", "run", "--out", str(tmp_path), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True


def becomes_closed(port: int, timeout_s: float = 5.0) -> bool:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if not is_open(port):
            return True
        time.sleep(0.02)
    return False


def test_embedded_broker_says_where_it_is_and_that_it_guards_nothing(run: Run, free_port: int) -> None:
    process = run("--port", str(free_port))
    assert f"MQTT 5 on port {free_port}, 3.1.1 on {free_port + 1}" in first_line(process)
    assert "no access control" in first_line(process)
    with (
        Connection(BrokerConfig(port=free_port), Session("new", "5")) as new,
        Connection(BrokerConfig(port=free_port + 1), Session("old", "3.1.1")) as old,
    ):
        new.subscribe("fedpi/2/lab/coord/status")
        old.publish("fedpi/2/lab/coord/status", b"hello")
        message = new.receive(3.0)
    assert message is not None
    assert message.payload == b"hello"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_group_stops_embedded_broker_cleanly(run: Run, free_port: int, number: signal.Signals) -> None:
    process = run("--port", str(free_port))
    first_line(process)
    os.killpg(process.pid, number)  # as a terminal and systemd do: the child gets it, too
    out, errors = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out.endswith("broker stopped\n")
    assert "Traceback" not in errors
    assert not is_open(free_port)


def test_killed_parent_takes_embedded_broker_with_it(run: Run, free_port: int) -> None:
    process = run("--port", str(free_port))
    first_line(process)
    process.kill()
    process.wait()
    assert becomes_closed(free_port)


def test_taken_port_is_one_sentence_and_exit_78(run: Run, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        process = run("--port", str(free_port))
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 78
    assert f"port {free_port}: the port is in use" in errors
    assert errors.count("\n") == 1


def test_public_address_is_one_sentence_and_exit_78(run: Run) -> None:
    process = run("--host", "0.0.0.0")  # noqa: S104 - refused
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 78
    assert "no access control" in errors
    assert errors.count("\n") == 1


def test_mosquitto_runs_as_init_prepared_it_and_obeys_signals(run: Run, tmp_path: Path, free_port: int) -> None:
    install.init(ServeConfig(folder=str(tmp_path), port=free_port, anonymous=True))
    process = run("--mosquitto")
    end = time.monotonic() + 5.0
    while not is_open(free_port) and time.monotonic() < end:
        time.sleep(0.02)
    assert is_open(free_port)
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_port_that_mosquitto_finds_taken_is_one_sentence_and_exit_78(run: Run, tmp_path: Path, free_port: int) -> None:
    install.init(ServeConfig(folder=str(tmp_path), port=free_port, anonymous=True))
    with socket.create_server(("127.0.0.1", free_port)):
        process = run("--mosquitto")
        _, errors = process.communicate(timeout=10)
    assert process.returncode == 78
    assert f"port {free_port}: the port is in use" in errors
    assert errors.count("\n") == 1


def test_mosquitto_without_init_is_told_to_run_it_first(run: Run) -> None:
    process = run("--mosquitto")
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 78
    assert "fedpi-broker init --out" in errors
