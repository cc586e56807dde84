"""`fedpi-broker check` against real brokers: it finds what their configuration makes them do."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker import embedded, install, probe
from broker.cli import main
from broker.connection import Connection, Session
from broker.settings import ServeConfig
from broker.verdict import judge
from common.config import BrokerConfig
from common.topics import Kind

SMALL = "max_packet_size 20480\nmax_queued_messages 10"


def check(broker: BrokerConfig, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", f"{broker.host}:{broker.port}", *arguments])


def ask(broker: BrokerConfig, protocol: str) -> probe.Asker:
    return probe.Asker(broker, protocol, "check-test")


def test_mosquitto_as_rendered_runs_fedpi_without_a_note(mosquitto: BrokerConfig) -> None:
    result = check(mosquitto, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["announced"]["protocols"] == ["5", "3.1.1"]
    assert found["announced"]["packet_bytes"] == 2**20 + 2**17
    assert found["announced"]["receive_maximum"] == 20
    assert found["packet_limit"] == {"arrived_bytes": 2**20, "beyond": "not tried"}
    for queue in ("slow", "offline"):
        assert found[queue] == {"sent": 1500, "arrived": 1500, "is_ordered": True}
    assert (found["runs"], found["failures"], found["notes"], found["settings"]) == (True, [], [], {})
    assert found["seconds"] < 20


def test_small_mosquitto_is_found_out(start_mosquitto: Callable[[str], BrokerConfig]) -> None:
    broker = start_mosquitto(SMALL)
    findings = probe.check(broker, lambda _: None)
    assert findings.announced.packet_bytes == 20_480
    assert findings.packet_limit.arrived_bytes == 20_480
    assert (findings.slow.arrived, findings.offline.arrived) == (30, 10)  # 20 in flight and 10 queued; 10 queued
    assert judge(findings).settings == {"transfer.credit_chunks": 15}
    limit = probe.ask_packet_limit(ask(broker, "3.1.1"), None)
    assert 20_480 - 1024 <= limit.arrived_bytes <= 20_480
    assert limit.beyond == "connection closed"


@pytest.mark.parametrize(("protocol", "fate"), [("5", "connection closed"), ("3.1.1", "lost in silence")])
def test_message_over_the_limit_costs_the_connection_or_is_lost(
    start_mosquitto: Callable[[str], BrokerConfig], protocol: str, fate: str
) -> None:
    limit = probe.ask_packet_limit(ask(start_mosquitto("message_size_limit 20480"), protocol), None)
    assert 20_480 - 1024 <= limit.arrived_bytes <= 20_480 + 100
    assert limit.beyond == fate


def test_default_mosquitto_drops_what_it_acknowledged(start_mosquitto: Callable[[str], BrokerConfig]) -> None:
    asker = ask(start_mosquitto(""), "5")
    assert probe.ask_slow_queue(asker).arrived == 1020
    assert probe.ask_offline_queue(asker).arrived == 1000


def test_mosquitto_without_retained_messages_does_not_run_fedpi(
    start_mosquitto: Callable[[str], BrokerConfig],
) -> None:
    result = check(start_mosquitto("retain_available false"))
    assert result.exit_code == 1, result.output
    assert "missing: a retained message" in result.output


@pytest.mark.parametrize(("offset", "protocol"), [(0, "5"), (1, "3.1.1")])
def test_embedded_broker_runs_fedpi_on_both_ports(embedded_broker: BrokerConfig, offset: int, protocol: str) -> None:
    broker = BrokerConfig(host=embedded_broker.host, port=embedded_broker.port + offset)
    findings = probe.check(broker, lambda _: None)
    assert findings.announced.protocols == (protocol,)
    assert findings.packet_limit.arrived_bytes == 2**20
    assert (findings.slow.arrived, findings.offline.arrived) == (1500, 1500)
    assert judge(findings).runs
    assert judge(findings).settings == {}


@pytest.mark.process
def test_limit_that_is_enforced_and_not_announced_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_port: int
) -> None:
    monkeypatch.setattr(embedded, "PAYLOAD_BYTES", 20_480)
    server = embedded.start(ServeConfig(folder=str(tmp_path), port=free_port))
    try:
        limit = probe.ask_packet_limit(ask(BrokerConfig(port=free_port), "5"), None)
    finally:
        server.stop()
    assert 20_480 - 1024 <= limit.arrived_bytes <= 20_480 + 100
    assert limit.beyond == "connection closed"


def test_check_leaves_no_retained_message_behind(mosquitto: BrokerConfig) -> None:
    assert check(mosquitto).exit_code == 0
    with Connection(mosquitto, Session("witness", "5")) as witness:
        witness.subscribe("#")
        assert [message.topic for message in witness.collect(9, 0.3, 1.0) if "/check-" in message.topic] == []


def test_check_leaves_no_session_behind(mosquitto: BrokerConfig) -> None:
    asker = ask(mosquitto, "5")
    assert probe.ask_offline_queue(asker).arrived > 0
    with asker.connect(client_id="check-test-kept", is_kept=True) as same, asker.connect() as publisher:
        publisher.publish(asker.topic(Kind.DEV_CMD), b"does the subscription still stand?")
        assert same.receive(0.3) is None
    with asker.connect(client_id="check-test-kept"):
        pass


def test_login_comes_from_any_configuration_and_must_hold_the_topics(
    tmp_path: Path, free_port: int, launch_mosquitto: Callable[[Path, int], BrokerConfig]
) -> None:
    install.init(ServeConfig(folder=str(tmp_path), port=free_port, devices=("rpi1",)))
    broker = launch_mosquitto(tmp_path / "mosquitto.conf", free_port)
    anonymous = check(broker)
    assert (anonymous.exit_code, anonymous.output.count("\n")) == (78, 1)
    assert "refuses the login" in anonymous.output
    results = {}
    for user in ("coordinator", "rpi1"):
        file = tmp_path / f"{user}.yaml"
        secret = tmp_path / "secrets" / f"{user}.password"
        file.write_text(f"port: ignored\nbroker: {{port: {free_port}, username: {user}, password_file: {secret}}}\n")
        results[user] = CliRunner().invoke(main, ["check", "--config", str(file)])
    assert results["coordinator"].exit_code == 0, results["coordinator"].output
    assert results["rpi1"].exit_code == 78
    assert "check with the coordinator's user" in results["rpi1"].output


def test_nobody_there_is_one_sentence_and_exit_69(free_port: int) -> None:
    result = check(BrokerConfig(port=free_port))
    assert result.exit_code == 69
    assert f"no broker answers at 127.0.0.1:{free_port}" in result.output
    assert result.output.count("\n") == 1


@pytest.fixture
def web_server() -> Iterator[BrokerConfig]:
    """Something that answers every line with words of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                with line:
                    line.recv(1024)
                    line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield BrokerConfig(port=server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_listener_that_is_no_broker_is_one_sentence_and_exit_69(web_server: BrokerConfig) -> None:
    result = check(web_server)
    assert result.exit_code == 69, result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["somewhere"], ["host:port"], ["host:99999"]])
def test_wrong_address_is_one_sentence_and_exit_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, ["check", *arguments])
    assert result.exit_code == 2
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("packet", [100, 129, 130, 131, 5120, 16_386, 16_387, 16_388, 65_536, 2**20])
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_packet_of_a_size_has_a_payload_that_makes_it_so(packet: int, protocol: str) -> None:
    name = "fedpi/x"
    payload = probe.payload_bytes(packet, name, protocol)
    remaining = 2 + len(name) + 2 + (protocol == "5") + payload
    length_bytes = 1 + (remaining > 127) + (remaining > 16_383)
    # No PUBLISH has a size just above the point where the length takes one byte more.
    assert packet - (1 + length_bytes + remaining) in {0, 1}
