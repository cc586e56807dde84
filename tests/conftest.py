"""Real brokers for every test, on free loopback ports.

- `mosquitto`: one for the whole run, as `fedpi-broker init --anonymous` renders it. Shared, so give each test a
  federation of its own and no test its restart.
- `start_mosquitto("max_packet_size 20480")`: one of your own with these settings, anonymous; Mosquitto's defaults
  otherwise. Ends with the test.
- `launch_mosquitto(conf, port)`: one of your own from a whole configuration file. Ends with the test.
- `embedded_broker`: iotcore for the whole run, as `fedpi-broker run` configures it. `port` speaks MQTT 5 only,
  `port + 1` speaks 3.1.1 only.
- `free_port`: a port that was free a moment ago.

All give a BrokerConfig: hand it to Link or to a configuration. Without Mosquitto the tests fail and say so.
"""

import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from broker import embedded, install
from broker.settings import ServeConfig
from common.config import BrokerConfig
from tests.quick import guard_of_quick_tests, pytest_collection_modifyitems

__all__ = ["guard_of_quick_tests", "pytest_collection_modifyitems"]  # pytest finds them here

# The same examples in every run; `pytest --hypothesis-profile=explore` looks for new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=60)
settings.register_profile("explore", deadline=None, max_examples=3000)
settings.load_profile("repeatable")

HOST = "127.0.0.1"
READY_S = 10.0


def find_ports(count: int) -> int:
    """Find `count` free ports in a row, below those that the kernel hands to outgoing connections."""
    for _ in range(1000):
        first = random.randrange(15_000, 30_000)
        if all(_is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError("no free ports found")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _launch(conf: Path, port: int) -> subprocess.Popen[bytes]:
    """Start Mosquitto and return once it accepts connections."""
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.fail("these tests run against a real Mosquitto: install it (Debian: apt install mosquitto)")
    log = conf.with_suffix(".log")
    with log.open("wb") as out:
        process = subprocess.Popen([program, "-c", str(conf)], stdout=out, stderr=out)
    end = time.monotonic() + READY_S
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection((HOST, port), 1.0).close()
        except OSError:
            time.sleep(0.02)
        else:
            return process
    _stop(process)
    pytest.fail(f"Mosquitto did not start: {log.read_text()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture
def free_port() -> int:
    return find_ports(1)


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerConfig]:
    folder, port = tmp_path_factory.mktemp("mosquitto"), find_ports(1)
    install.init(ServeConfig(folder=str(folder), port=port, anonymous=True))
    process = _launch(folder / "mosquitto.conf", port)
    yield BrokerConfig(host=HOST, port=port)
    _stop(process)


@pytest.fixture(scope="session")
def embedded_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerConfig]:
    port = find_ports(2)
    broker = embedded.start(ServeConfig(folder=str(tmp_path_factory.mktemp("embedded")), port=port))
    yield BrokerConfig(host=HOST, port=port)
    broker.stop()


@pytest.fixture
def launch_mosquitto() -> Iterator[Callable[[Path, int], BrokerConfig]]:
    processes = []

    def launch(conf: Path, port: int) -> BrokerConfig:
        processes.append(_launch(conf, port))
        return BrokerConfig(host=HOST, port=port)

    yield launch
    for process in processes:
        _stop(process)


@pytest.fixture
def start_mosquitto(
    tmp_path: Path, launch_mosquitto: Callable[[Path, int], BrokerConfig]
) -> Callable[[str], BrokerConfig]:
    def start(settings: str) -> BrokerConfig:
        port = find_ports(1)
        conf = tmp_path / f"mosquitto-{port}.conf"
        conf.write_text(f"listener {port} {HOST}\nallow_anonymous true\n{settings}\n")
        return launch_mosquitto(conf, port)

    return start
