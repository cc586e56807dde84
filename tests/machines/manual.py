"""What docs/operations.md tells people to type, typed on the machines: each step must do what it says there."""

import shutil
import time
from collections.abc import Callable
from functools import partial

from tests.machines.federation import COORDINATOR, DEVICE, Federation, enroll
from tests.machines.hosts import Host
from tests.machines.roots import ROOT, MachineError
from tests.machines.trials import begin_training, trainer, wait_for_commit

BACKUP = "/srv/fedpi-backup.tar.gz"
FOLDERS = ("etc/fedpi", "var/lib/fedpi", "var/lib/fedpi-broker")
SECURITY = ROOT / "docs/security.md"
METRICS = "http://127.0.0.1:9464/metrics"
KINDS = ("path", "service")
SERVICES = ("fedpi-device", "fedpi-inference")


def run_all(federation: Federation, tell: Callable[[str], None]) -> dict[str, float]:
    """Follow every section; returns the seconds that each took. Raises MachineError where one does not hold."""
    took = {}
    steps: list[Callable[[Federation], None]] = [keep_accounts_apart, watch, read_logs, scrape, back_up_and_restore]
    steps += [mend_broker, let_application_ask, replace_pi, renew, rekey, rekey_stolen]
    for step in steps:
        began = time.monotonic()
        step(federation)
        took[step.__name__] = round(time.monotonic() - began, 1)
    tell(f"The manual holds: {took}")
    return took


def keep_accounts_apart(federation: Federation) -> None:
    """Neither the broker's account nor the coordinator's finds what is the other's."""
    attempts = {
        "fedpi-broker": (
            "ls /var/lib/fedpi",
            "cat /etc/fedpi/coordinator.yaml",
            "cat /etc/fedpi/coordinator/coordinator.signing",
            "cat /etc/fedpi/authority/ca.key",
            "touch /var/lib/fedpi-broker/acl",
        ),
        "fedpi": (
            "ls /var/lib/fedpi-broker",
            "cat /etc/fedpi/coordinator/coordinator.signing",
            "cat /etc/fedpi/authority/ca.key",
        ),
    }
    for account, commands in attempts.items():
        for command in commands:
            done = federation.hub.run("runuser", "-u", account, "--", *command.split(), check=False)
            if "Permission denied" not in done.stderr:
                raise MachineError(f"{account} may {command}: {done.stdout}{done.stderr}")
    key = federation.hub.run("stat", "--format=%U %a", "/var/lib/fedpi-broker/server.key").stdout.strip()
    if key != "fedpi-broker 600":
        raise MachineError(f"server.key: {key}")


def watch(federation: Federation) -> None:
    """Watch from a machine that is not the hub, with the identity that may read."""
    hub, other = federation.hub, federation.devices[0]
    hub.run("fedpi-broker", "enroll", "monitor", "--to", "/srv")
    carry(hub, other, "monitor")
    other.run("fedpi-coordinator", "join", "/srv/monitor.fedpi", "--config-folder", "/srv/eyes")
    look = ("fedpi-coordinator", "watch", "--config", "/srv/eyes/monitor.yaml", "--json", "--seconds", "5")
    expect(other.run(*look).stdout, "coord/rounds", "dev/rpi2/status")
    for question in (["status"], ["devices"], ["rounds"], ["rounds", "--round", "1"], ["stop"]):
        expect(hub.run("fedpi-coordinator", *question, "--config", COORDINATOR).stdout)
    expect(hub.run("systemctl", "status", "--no-pager", "fedpi-coordinator").stdout, "active (running)")


def read_logs(federation: Federation) -> None:
    """Find the entries of a round that fails by their fields, and what to do about them."""
    device, before = federation.devices[0], begin_training(federation)
    federation.wait_for("a trainer", lambda: bool(trainer(device)))
    device.run("kill", "-KILL", trainer(device))
    federation.wait_for_phase("abandoned", after=before)
    journal = ("journalctl", "--no-pager", "-u")
    for field in ("ROUND=1", "DEVICE=rpi1", "EVENT=round-void"):
        expect(federation.hub.run(*journal, "fedpi-coordinator", field).stdout)
    explained = device.run("journalctl", "--no-pager", "-x", "-u", "fedpi-device", "-p", "warning")
    expect(explained.stdout, "Subject: A training failed on rpi1", "Defined-By: fedpi")


def scrape(federation: Federation) -> None:
    """Ask as Prometheus does."""
    hub = federation.hub
    hub.run("sh", "-c", f"printf 'metrics: {{port: 9464}}\\n' >> {COORDINATOR}")
    hub.run("systemctl", "restart", "fedpi-coordinator")
    fetch = f"import urllib.request as r; print(r.urlopen('{METRICS}', timeout=5).read().decode())"
    expect(hub.run("python3", "-c", fetch).stdout, "fedpi_")


def back_up_and_restore(federation: Federation) -> None:
    """Lose everything on the hub that a backup holds, bring it back: rounds go on from there."""
    hub, units = federation.hub, [f"fedpi-{role}.{kind}" for role in ("broker", "coordinator") for kind in KINDS]
    hub.run("systemctl", "stop", "fedpi-coordinator")
    hub.run("tar", "-C", "/", "-czf", BACKUP, *FOLDERS)
    hub.run("systemctl", "start", "fedpi-coordinator")
    before = federation.last_round()
    commit(federation)
    hub.run("systemctl", "stop", "fedpi-*")
    hub.run("rm", "-rf", *(f"/{folder}" for folder in FOLDERS))
    hub.run("tar", "-C", "/", "-xzf", BACKUP)
    hub.run("systemctl", "start", *units)
    if federation.last_round() != before:
        raise MachineError("the restored journal is not that of the backup")
    commit(federation)


def mend_broker(federation: Federation) -> None:
    """Break the broker's configuration: it stays down, and comes back by itself when the file is mended."""
    hub, file = federation.hub, "/var/lib/fedpi-broker/mosquitto.conf"
    hub.run("sh", "-c", f"echo nonsense >> {file}; systemctl restart fedpi-broker", check=False)
    time.sleep(6)  # longer than the pause before a restart
    if (state := hub.show("fedpi-broker", "ActiveState")) != "failed":
        raise MachineError(f"a broker with a wrong configuration is {state}")
    hub.run("sed", "--in-place", "/^nonsense/d", file)
    commit(federation)


def let_application_ask(federation: Federation) -> None:
    """Give an application an identity and the rules that docs/security.md shows: it is answered."""
    hub, rules = (
        federation.hub,
        SECURITY.read_text(encoding="utf-8").partition("\nuser camera1\n")[2].partition("```")[0],
    )
    hub.run("fedpi-broker", "enroll", "camera1", "--to", "/srv")
    hub.run("fedpi-device", "join", "/srv/camera1.fedpi", "--config-folder", "/srv/camera1")
    hub.run("sh", "-c", f"printf '%s' 'user camera1\n{rules}' >> /var/lib/fedpi-broker/acl")
    hub.run("systemctl", "reload", "fedpi-broker")
    if not (answer := federation.ask(federation.devices[0], "/srv/camera1/device/device"))["ok"]:
        raise MachineError(f"camera1 is answered: {answer['text']}")


def replace_pi(federation: Federation) -> None:
    """Shut a Pi's keys out, and give its name new ones."""
    hub, device = federation.hub, federation.devices[-1]
    hub.run("fedpi-broker", "revoke", device.name)
    hub.run("systemctl", "restart", "fedpi-broker")
    enroll(hub, device, "--again")
    device.run("systemctl", "restart", *SERVICES)
    commit(federation)
    expect(device.run("fedpi-device", "check", "--config", DEVICE).stdout, "identity")


def renew(federation: Federation) -> None:
    """Renew certificates: none ends soon, so then all."""
    hub = federation.hub
    expect(hub.run("fedpi-broker", "enrolled").stdout, "rpi1", "coordinator")
    expect(hub.run("fedpi-broker", "renew").stdout, "No certificate ends")
    hub.run("fedpi-broker", "renew", "--all", "--to", "/srv")
    join_again(federation)
    hub.run("systemctl", "restart", "fedpi-coordinator")
    for device in federation.devices:
        device.run("systemctl", "restart", *SERVICES)
    commit(federation)


def rekey(federation: Federation) -> None:
    """Replace the coordinator's signing key while everything runs."""
    hub, starts = federation.hub, [device.invocation("fedpi-device") for device in federation.devices]
    hub.run("fedpi-broker", "rekey", "--to", "/srv")
    commit(federation)
    join_again(federation)
    hub.run("fedpi-broker", "rekey", "--switch")
    hub.run("systemctl", "restart", "fedpi-coordinator")
    commit(federation)
    if [device.invocation("fedpi-device") for device in federation.devices] != starts:
        raise MachineError("a device was started anew while the signing key was replaced")


def rekey_stolen(federation: Federation) -> None:
    """Replace all the coordinator's keys at once."""
    hub = federation.hub
    hub.run("fedpi-broker", "rekey", "--stolen", "--to", "/srv")
    hub.run("systemctl", "restart", "fedpi-broker", "fedpi-coordinator")
    join_again(federation)
    commit(federation)


# ---- parts of them ----------------------------------------------------------------------------


def carry(hub: Host, device: Host, name: str) -> None:
    """Take a file that `fedpi-broker` wrote to another machine."""
    shutil.move(hub.root / f"srv/{name}.fedpi", device.root / f"srv/{name}.fedpi")


def join_again(federation: Federation) -> None:
    """Take every device its file, and join there."""
    for device in federation.devices:
        carry(federation.hub, device, device.name)
        device.run("fedpi-device", "join", f"/srv/{device.name}.fedpi")


def commit(federation: Federation) -> None:
    """Run a round with both devices once both are there."""
    hub, before = federation.hub, federation.last_round()
    federation.wait_for("both devices", partial(_are_online, hub))
    began = time.monotonic()
    federation.start()
    wait_for_commit(federation, before, began)


def _are_online(hub: Host) -> bool:
    return hub.run("fedpi-coordinator", "devices", "--config", COORDINATOR, "--json").stdout.count('"online"') == 2


def expect(said: str, *words: str) -> None:
    """Raise MachineError unless something was said, and these words with it."""
    if not said.strip() or "-- No entries --" in said or not all(word in said for word in words):
        raise MachineError(f"{', '.join(words) or 'something'} was not said: {said}")
