"""A federation on three machines: `hub` with broker and coordinator, `rpi1` and `rpi2` with devices."""

import json
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.topics import VERSION
from coordinator.dataset.synthetic import draw_slices
from tests.machines.hosts import MEDIA, Host
from tests.machines.roots import MachineError

ADDRESSES = {"hub": "10.77.0.1", "rpi1": "10.77.0.11", "rpi2": "10.77.0.12"}
WHEELS = "/media/wheels"
PIP = {"no_index": "1", "find_links": WHEELS, "root_user_action": "ignore"}
"""Settings of pip on a machine without a network."""
COORDINATOR = "/etc/fedpi/coordinator.yaml"
DEVICE = "/etc/fedpi/device.yaml"
IDENTITY = "/etc/fedpi/coordinator"
EXPORTED = "var/lib/fedpi/coordinator/export/model.tflite"
ROUND_S = 180.0
PER_LABEL = 24


@dataclass(frozen=True)
class Federation:
    """Three machines that run."""

    hub: Host
    devices: tuple[Host, ...]

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All of them, the hub first."""
        return (self.hub, *self.devices)

    def start(self, rounds: int = 1) -> None:
        """Ask for rounds, without waiting for them."""
        self.coordinator("start", "--rounds", str(rounds), "--detach")

    def coordinator(self, *words: str) -> str:
        """Run a command of the coordinator's, as the account that owns the journal."""
        name, *options = words
        config = ["--config", COORDINATOR]
        return self.hub.run("runuser", "-u", "fedpi", "--", "fedpi-coordinator", name, *options, *config).stdout

    def ask(self, device: Host, identity: str = f"{IDENTITY}/coordinator") -> dict[str, Any]:
        """Send an image of the hub's to a device over MQTT as who has `identity`; returns the prediction."""
        address = ["-h", "hub", "-p", "8883", "--cafile", f"{IDENTITY}/ca.crt"]
        login = [*address, "--cert", f"{identity}.crt", "--key", f"{identity}.key"]
        image = next((self.hub.root / "srv/images/yes").iterdir()).name
        topic = f"{VERSION}/brain/dev/{device.name}"
        listen = ["mosquitto_sub", *login, "-C", "1", "-W", "20", "-t", f"fedpi/{topic}/prediction"]
        speak = ["mosquitto_pub", *login, "-t", f"fedpi-wire/{topic}/infer", "-f", f"/srv/images/yes/{image}"]
        both = f"{shlex.join(listen)} & sleep 1; {shlex.join(speak)}; wait"
        prediction: dict[str, Any] = json.loads(self.hub.run("sh", "-c", both).stdout)
        return prediction

    def rounds(self) -> list[dict[str, Any]]:
        """Read the ledger."""
        ledger: list[dict[str, Any]] = json.loads(self.coordinator("rounds", "--json"))
        return ledger

    def wait_for(self, what: str, is_so: Callable[[], bool], within_s: float = ROUND_S) -> float:
        """Wait until `is_so`; returns the seconds that it took. Raises MachineError when it takes too long."""
        began = time.monotonic()
        while time.monotonic() - began < within_s:
            try:
                if is_so():
                    return time.monotonic() - began
            except MachineError:  # a machine that is just starting
                pass
            time.sleep(0.25)
        raise MachineError(f"{what}: not within {within_s:g} s")

    def wait_for_phase(self, *phases: str, after: int = 0) -> float:
        """Wait until a round beyond number `after` is in one of `phases`."""

        def is_there() -> bool:
            return any(r["round"] > after and r["phase"] in phases for r in self.rounds())

        return self.wait_for(f"a round that is {' or '.join(phases)}", is_there)

    def last_round(self) -> int:
        """Return the number of the last round; 0 before the first."""
        return max((r["round"] for r in self.rounds()), default=0)


def draw_images(folder: Path) -> None:
    """Draw images for everybody: `folder`/NAME/yes and /no."""
    for seed, name in enumerate(ADDRESSES):
        if not (folder / name).exists():
            draw_slices(folder / name, PER_LABEL, seed, size=96)


def hand_out(host: Host, images: Path) -> None:
    """Put a machine's own images on its disk."""
    place = host.root / "srv/images"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(images / host.name, place)


def offline(*words: str, clone: str = MEDIA) -> tuple[str, ...]:
    """Return the command that installs from the clone and the wheels; there is no network to fetch from.

    In the barest environment: without a language, with a mask that lets nobody else read, and few folders of programs.
    """
    settings = ("PATH=/usr/bin:/bin", *(f"PIP_{name.upper()}={value}" for name, value in PIP.items()))
    mask = ("sh", "-c", 'umask 077; exec "$@"', "sh")
    return ("env", "-i", *settings, *mask, "bash", f"{clone}/install.sh", *words)


def install(host: Host, *words: str) -> float:
    """Install roles; returns the seconds that it took."""
    began = time.monotonic()
    host.run(*offline(*words))
    return time.monotonic() - began


def configure_hub(hub: Host, federation: str) -> None:
    """Write what an operator writes: a small model, two devices. Then the first of the three commands."""
    document = {
        "federation": federation,
        "state": "/var/lib/fedpi/coordinator",
        "model": {"name": "simple_cnn", "options": {"image_size": 48}},
        "initial": {"source": "train", "epochs": 2},
        "data": {"images": "/srv/images"},
        "training": {"epochs": 150},  # some seconds, in which faults strike
        "round": {"goal": 2, "minimum": 2, "selection_s": 120, "deadline_s": 150},
    }
    # The broker does not run yet, and the coordinator waits for it.
    _write(hub, COORDINATOR, document)
    hub.run("fedpi-broker", "init", "--federation", federation)
    hub.run("systemctl", "restart", "fedpi-coordinator")


def enroll(hub: Host, device: Host, *options: str) -> None:
    """The other two commands: enrol the device at the hub, carry the file over, join."""
    bundle = f"{device.name}.fedpi"
    hub.run("fedpi-broker", "enroll", device.name, *options, "--to", "/srv")
    shutil.move(hub.root / "srv" / bundle, device.root / "srv" / bundle)
    device.run("fedpi-device", "join", f"/srv/{bundle}")


def configure_device(device: Host) -> None:
    """Write what an operator writes: this site's images."""
    images = "import sys; open(sys.argv[1], 'a').write('data: {images: /srv/images}\\n')"
    device.run("python3", "-c", images, DEVICE)
    device.run("systemctl", "restart", "fedpi-device", "fedpi-inference")


def configure_alone() -> dict[str, Any]:
    """What an operator writes for a device beside a broker that asks for nothing."""
    data = {"images": "/srv/images"}
    return {"federation": "brain", "device": "rpi1", "state": "/var/lib/fedpi/device", "data": data}


def _write(host: Host, path: str, document: dict[str, Any]) -> None:
    host.run("python3", "-c", "import sys; open(sys.argv[1], 'w').write(sys.argv[2])", path, yaml.safe_dump(document))
