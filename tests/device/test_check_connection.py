"""`fedpi-device check` against brokers that refuse: it names what is wrong, what to do, and who has to do it."""

import datetime as dt
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from cryptography import x509

from broker import authority as authorities
from broker.cli import main as broker_main
from common.config import BrokerConfig, TlsConfig
from common.inbox import Inbox
from common.link import Down, Link
from coordinator.cli import main as coordinator
from device.cli import main
from tests.conftest import find_ports

NOW, DAY = dt.datetime.now(dt.UTC), dt.timedelta(days=1)
Launch = Callable[[Path, int], BrokerConfig]


class Lab:
    """An authority and what it certified, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ours, self.other = (authorities.create("lab", NOW) for _ in range(2))
        (folder / "ca.crt").write_text(self.ours.pem)
        (folder / "other.crt").write_text(self.other.pem)
        revoked = x509.load_pem_x509_certificate(self.client("revoked").encode()).serial_number
        (folder / "crl").write_text(authorities.revocations(self.ours, [revoked], NOW))
        self.client("good"), self.client("ended", (-50, -1)), self.client("early", (50, 100))
        self.client("foreign", by=self.other)
        self.server("here")
        self.server("over", (-50, -1))
        self.server("soon", (50, 100))
        self.server("elsewhere", name="broker.lan")

    def client(self, name: str, days: tuple[int, int] = (0, 100), by: authorities.Authority | None = None) -> str:
        key, at = authorities.new_key(), NOW + days[0] * DAY
        pem = authorities.issue_client(by or self.ours, name, key.public_key(), NOW + days[1] * DAY, at)
        self._keep(name, pem, authorities.private_pem(key))
        return pem

    def server(self, file: str, days: tuple[int, int] = (0, 100), name: str = "127.0.0.1") -> None:
        key, at = authorities.new_key(), NOW + days[0] * DAY
        pem = authorities.issue_server(self.ours, [name], key.public_key(), NOW + days[1] * DAY, at)
        self._keep(file, pem, authorities.private_pem(key))

    def _keep(self, name: str, certificate: str, key: str) -> None:
        (self.folder / f"{name}.crt").write_text(certificate)
        (self.folder / f"{name}.key").write_text(key)

    def tls(self, client: str | None = "good", ca: str = "ca.crt", key: str | None = None) -> dict[str, str]:
        section = {"ca": str(self.folder / ca)}
        if client is not None:
            section |= {"certificate": str(self.folder / f"{client}.crt")}
            section |= {"key": str(self.folder / (key or f"{client}.key"))}
        return section


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def launch(lab: Lab, tmp_path: Path, launch_mosquitto: Launch) -> Callable[[str], int]:
    """Start a Mosquitto; `server` names the certificate that it shows, none: it speaks no TLS."""

    def launch(server: str, *settings: str) -> int:
        port = find_ports(1)
        lines = ["user root", f"listener {port} 127.0.0.1", *settings]
        if server:
            lines += [f"cafile {lab.folder / 'ca.crt'}", f"crlfile {lab.folder / 'crl'}"]
            lines += [f"certfile {lab.folder / server}.crt", f"keyfile {lab.folder / server}.key"]
        conf = tmp_path / f"{port}.conf"
        conf.write_text("\n".join([*lines, ""]))
        return launch_mosquitto(conf, port).port

    return launch


def checked(folder: Path, **broker: Any) -> tuple[dict[str, Any], int]:
    """Check a device; returns the finding of the broker, and the exit code."""
    path = folder / "device.yaml"
    serving = {"process": "off"}
    plain = {"federation": "lab", "device": "rpi1", "state": str(folder / "state"), "broker": broker}
    path.write_text(yaml.safe_dump({**plain, "serving": serving}))
    result = CliRunner().invoke(main, ["check", "--config", str(path), "--json"])
    found = {finding["check"]: finding for finding in json.loads(result.output)}
    return found["broker"], result.exit_code


ENFORCED = ("require_certificate true", "use_identity_as_username true", "allow_anonymous false")


def test_a_client_certificate_that_the_broker_refuses_is_explained(
    lab: Lab, launch: Callable[..., int], tmp_path: Path
) -> None:
    port = launch("here", *ENFORCED)
    assert checked(tmp_path, port=port, tls=lab.tls())[0]["standing"] == "ok"
    expected = {
        "ended": ("has ended on", 78),
        "early": ("set the clock", 69),
        "foreign": ("of another authority", 78),
        "revoked": ("revoked", 78),
        None: ("asks for a certificate", 78),
    }
    for client, (said, code) in expected.items():
        found, exit_code = checked(tmp_path, port=port, tls=lab.tls(client))
        assert found["standing"] == "FAIL"
        assert said in found["text"], (client, found["text"])
        assert exit_code == code or "perhaps" in found["text"], (client, found)  # the alert may get lost on its way


def test_a_broker_whose_certificate_cannot_be_trusted_is_explained(
    lab: Lab, launch: Callable[..., int], tmp_path: Path
) -> None:
    for server, (said, code) in {
        "over": ("has ended", 78),
        "soon": ("set the clock", 69),
        "elsewhere": ("for another name than 127.0.0.1", 78),
    }.items():
        found, exit_code = checked(tmp_path, port=launch(server, "allow_anonymous true"), tls=lab.tls())
        assert said in found["text"]
        assert exit_code == code


def test_the_wrong_authority_and_the_wrong_port_are_explained(
    lab: Lab, launch: Callable[..., int], tmp_path: Path
) -> None:
    secured, plain = launch("here", "allow_anonymous true"), launch("", "allow_anonymous true")
    wrong: dict[str, dict[str, Any]] = {
        "not of the authority in broker.tls.ca": {"port": secured, "tls": lab.tls(ca="other.crt")},
        "the port speaks TLS": {"port": secured},
        "the port speaks no TLS": {"port": plain, "tls": lab.tls()},
    }
    for said, broker in wrong.items():
        found, exit_code = checked(tmp_path, **broker)
        assert said in found["text"]
        assert exit_code == 78


@pytest.mark.parametrize("protocol", ["auto", "5", "3.1.1"])
def test_a_refused_login_is_explained(launch: Callable[..., int], tmp_path: Path, protocol: str) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "rpi1", "right"], check=True)
    passwords.chmod(0o644)
    (tmp_path / "wrong").write_text("wrong")
    port = launch("", "allow_anonymous false", f"password_file {passwords}")
    login = {"username": "rpi1", "password_file": str(tmp_path / "wrong")}
    found, exit_code = checked(tmp_path, port=port, protocol=protocol, **login)
    assert "refuses the login of 'rpi1': correct broker.username and broker.password_file" in found["text"]
    assert exit_code == 78


def test_what_the_broker_does_not_let_the_device_hear_is_explained(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # Mosquitto grants each subscription and delivers nothing

        def talk() -> None:
            line, _ = listener.accept()
            line.recv(1000)
            line.sendall(bytes.fromhex("20 03 00 00 00"))  # CONNACK
            mid = line.recv(1000)[2:4]
            line.sendall(bytes.fromhex("90 04") + mid + bytes.fromhex("00 87"))  # SUBACK: not authorised
            line.recv(1000)

        threading.Thread(target=talk, daemon=True).start()
        found, exit_code = checked(tmp_path, port=listener.getsockname()[1])
    assert "not hear fedpi-wire/2/lab/dev/rpi1/cmd" in found["text"]
    assert exit_code == 78


def test_a_broker_of_small_packets_is_refused_by_check_and_by_run(launch: Callable[..., int], tmp_path: Path) -> None:
    port = launch("", "allow_anonymous true", "max_packet_size 5119")
    found, exit_code = checked(tmp_path, port=port)
    assert "takes packets of 5119 bytes at most, and fedpi needs 5120" in found["text"]
    assert exit_code == 78
    inbox = Inbox()
    link = Link("run", "fedpi-run", BrokerConfig(port=port), inbox)
    link.start()
    down = inbox.get(10.0)
    link.stop()
    assert isinstance(down, Down)
    assert "fedpi needs 5120" in down.reason
    assert checked(tmp_path, port=launch("", "allow_anonymous true", "max_packet_size 5120"))[1] == 0


@pytest.fixture
def old_broker(mosquitto: BrokerConfig) -> Iterator[int]:
    """A port where whoever speaks MQTT 5 is hung up on, without an answer."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            first = line.recv(1000)
            if first.partition(b"\x00\x04MQTT")[2][:1] != b"\x04":
                line.close()
                continue
            far = socket.create_connection(("127.0.0.1", mosquitto.port))
            far.sendall(first)
            for here, there in ((line, far), (far, line)):
                threading.Thread(target=copy, args=(here, there), daemon=True).start()

    def copy(here: socket.socket, there: socket.socket) -> None:
        while data := here.recv(1000):
            there.sendall(data)
        there.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_broker_that_hangs_up_on_mqtt_5_is_found_to_speak_the_earlier_one(old_broker: int, tmp_path: Path) -> None:
    found, exit_code = checked(tmp_path, port=old_broker)
    assert "speaks MQTT 3.1.1" in found["text"]
    assert exit_code == 0


def test_the_check_of_a_broker_says_the_same(lab: Lab, launch: Callable[..., int], old_broker: int) -> None:
    for port, said, code in (
        (launch("here", "allow_anonymous true"), "the port speaks TLS", 78),
        (launch("", "allow_anonymous true", "max_packet_size 5119"), "5120 are needed", 1),
        (find_ports(1), "nothing listens there", 69),
        (old_broker, "no MQTT 5 here: fedpi speaks 3.1.1", 0),
    ):
        result = CliRunner().invoke(broker_main, ["check", f"127.0.0.1:{port}"])
        assert said in result.output, result.output
        assert result.exit_code == code
    path = lab.folder / "broker.yaml"
    port = launch("here", *ENFORCED)
    for tls, said in ((lab.tls("ended"), "has ended on"), (lab.tls(ca="other.crt"), "not of the authority")):
        path.write_text(yaml.safe_dump({"broker": {"port": port, "tls": tls}}))
        result = CliRunner().invoke(broker_main, ["check", "--config", str(path)])
        assert said in result.output
        assert result.exit_code == 69


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "kind", "said"),
    [
        ("check", "missing", "none.crt"),
        ("check", "foreign key", "does not belong to"),
        ("check", "encrypted", "is encrypted; decrypt it"),
        ("check", "no key", "holds no private key"),
        ("run", "encrypted", "is encrypted; decrypt it"),
        ("serve", "missing", "none.crt"),
    ],
)
def test_a_file_that_cannot_work_is_named_by_check_run_and_serve(
    lab: Lab, tmp_path: Path, command: str, kind: str, said: str
) -> None:
    secret, sealed = lab.folder / "good.key", lab.folder / "sealed.key"
    encrypt = ["openssl", "pkey", "-in", str(secret), "-aes128", "-passout", "pass:abcd", "-out", str(sealed)]
    subprocess.run(encrypt, check=True)
    tls = {
        "missing": lab.tls(ca="none.crt"),
        "foreign key": lab.tls(key="here.key"),
        "encrypted": lab.tls(key="sealed.key"),
        "no key": lab.tls(key="ca.crt"),
    }[kind]
    path = tmp_path / "device.yaml"
    plain = {"federation": "lab", "device": "rpi1", "state": str(tmp_path / "s"), "broker": {"tls": tls}}
    path.write_text(yaml.safe_dump({**plain, "serving": {"process": "off"}}))
    terminal, ours = os.openpty()  # a question would be asked there, and wait for an answer
    line = [sys.executable, "-m", "device", command, "--config", str(path)]
    done = subprocess.run(line, stdin=terminal, capture_output=True, text=True, timeout=30, check=False)
    os.close(terminal)
    os.close(ours)
    assert done.returncode == 78
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "PEM pass phrase" not in done.stdout + done.stderr


def test_the_coordinator_says_so_before_it_makes_a_model(lab: Lab, tmp_path: Path) -> None:
    path, state = tmp_path / "coordinator.yaml", tmp_path / "state"
    broker = {"tls": lab.tls(key="here.key")}
    path.write_text(
        yaml.safe_dump({"federation": "lab", "state": str(state), "broker": broker, "model": {"name": "numpy"}})
    )
    result = CliRunner().invoke(coordinator, ["serve", "--config", str(path)])
    assert result.exit_code == 78, result.output
    assert "does not belong to" in result.output
    assert not state.exists()


def test_a_file_that_gets_lost_while_the_device_runs_ends_nothing(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(lab.ours.pem)
    inbox = Inbox()
    broker = BrokerConfig(port=find_ports(1), reconnect_max_s=0.1, tls=TlsConfig(ca=str(tmp_path / "ca.crt")))
    link = Link("run", "fedpi-run", broker, inbox)
    (tmp_path / "ca.crt").unlink()
    link.start()
    downs = [inbox.get(10.0) for _ in range(2)]
    link.stop()
    assert all(isinstance(down, Down) and "ca.crt" in down.reason for down in downs)
