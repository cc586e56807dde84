"""An IPv6 address works wherever a host is named, with and without its square brackets."""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker import mosquitto
from broker.cli import main as broker_main
from broker.settings import ServeConfig
from common.config import BrokerConfig
from common.inbox import Inbox
from common.link import Link, Up
from coordinator.config import MetricsConfig
from coordinator.metrics import exposed
from device.check import examine


def free_port() -> int:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def port(start_mosquitto: Callable[[str], BrokerConfig]) -> int:
    """Where a broker listens on ::1."""
    port = free_port()
    start_mosquitto(f"listener {port} ::1")
    return port


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_a_link_speaks_to_a_broker_on_ipv6(port: int, host: str) -> None:
    inbox = Inbox()
    link = Link("six", "six", BrokerConfig(host=host, port=port), inbox)
    link.start()
    assert isinstance(inbox.get(5.0), Up)
    link.stop()


def test_the_check_of_a_device_reaches_it(port: int, tmp_path: Path) -> None:
    path = tmp_path / "device.yaml"
    path.write_text(
        f"federation: fed\ndevice: six\nstate: {tmp_path / 'state'}\nbroker: {{host: '[::1]', port: {port}}}\n"
    )
    finding = next(finding for finding in examine(path) if finding.check == "broker")
    assert finding.text.startswith(f"[::1]:{port} speaks MQTT")


def test_the_check_of_a_broker_takes_the_address_with_brackets(port: int) -> None:
    done = CliRunner().invoke(broker_main, ["check", f"[::1]:{port}", "--protocol", "5"])
    assert f"broker at [::1]:{port}" in done.output, done.output
    told = CliRunner().invoke(broker_main, ["check", f"mqtt://[::1]:{port}"])
    assert told.exit_code == 2
    assert "write ::1 here" in told.output


def test_mosquitto_is_told_the_address_without_brackets(tmp_path: Path) -> None:
    config = ServeConfig(kind="mosquitto", host="[::1]", port=1883, anonymous=True, folder=str(tmp_path))
    assert mosquitto.listeners(mosquitto.render_conf(config, "mosquitto")) == [("::1", 1883)]


def test_metrics_are_served_on_ipv6(tmp_path: Path) -> None:
    port = free_port()
    before = threading.active_count()
    with exposed(MetricsConfig(host="[::1]", port=port), tmp_path / "journal", "fed"):
        socket.create_connection(("::1", port), 5.0).close()
    assert threading.active_count() == before
