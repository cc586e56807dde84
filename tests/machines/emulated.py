"""The same installation on arm64, as a Raspberry Pi is, by emulation: slow, so without booting and without training."""

import contextlib
import json
import shlex
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.machines.federation import DEVICE, WHEELS, configure_alone, draw_images, offline
from tests.machines.hosts import MEDIA
from tests.machines.roots import System, command, fetch_wheels, make_root

EMULATOR = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
"""The kernel's word that it runs arm64 programs by qemu."""
UNITS = ("device", "inference")
INSTALL_S = 3600.0


@dataclass(frozen=True)
class Emulated:
    """A root in which commands run one at a time, without systemd."""

    root: Path
    binds: dict[Path, str]

    def run(self, *words: str, timeout_s: float = INSTALL_S) -> str:
        """Run a command in it, without a network beyond itself; returns what it said."""
        # Without /sys: it describes this machine's processors, and LiteRT, which believes that, crashes.
        steps = ["ip link set lo up"]
        for here, there in self.binds.items():
            place = shlex.quote(f"{self.root}{there}")
            steps += [f"mkdir -p {place}", f"mount --bind -o ro {shlex.quote(str(here))} {place}"]
        steps += [f'exec chroot {self.root} "$@"']
        apart = ["unshare", "--mount", "--net", "--pid", "--fork", f"--mount-proc={self.root}/proc"]
        return command(*apart, "sh", "-ec", "; ".join(steps), "sh", *words, timeout_s=timeout_s).stdout


def try_emulated(folder: Path, system: System, clone: Path, model: Path) -> dict[str, Any]:
    """Install a device, verify its units, check it, classify an image by the TFLite file `model`."""
    with _disk(folder / "arm64", make_root(folder, system)) as root:
        machine = Emulated(root, {clone: MEDIA, fetch_wheels(folder, system): WHEELS})
        began = time.monotonic()
        told = machine.run(*offline("device", "inference"))
        took = round(time.monotonic() - began, 1)
        draw_images(folder / "images")
        shutil.copytree(folder / "images/rpi1", root / "srv/images")
        shutil.copy2(model, root / "srv/model.tflite")
        (root / DEVICE.lstrip("/")).write_text(yaml.safe_dump(configure_alone()), encoding="utf-8")
        machine.run("systemd-analyze", "verify", *(f"/etc/systemd/system/fedpi-{unit}.service" for unit in UNITS))
        # Mosquitto without a configuration serves this machine only, and everybody on it.
        check = f"mosquitto --daemon; sleep 5; fedpi-device check --json --config {DEVICE}"
        infer = "fedpi-device infer --json --model /srv/model.tflite"
        image = next(path.name for path in (root / "srv/images/yes").iterdir())
        return {
            "machine": machine.run("uname", "-m").strip(),
            "install_s": took,
            "told": told.splitlines()[-1],
            "check": json.loads(machine.run("sh", "-c", check)),
            "infer": json.loads(machine.run(*infer.split(), "--config", DEVICE, f"/srv/images/yes/{image}")),
        }


@contextlib.contextmanager
def _disk(folder: Path, base: Path) -> Iterator[Path]:
    """An empty layer over `base`; gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("disk", "work", "root"):
        (folder / part).mkdir(parents=True)
    layers = f"lowerdir={base},upperdir={folder / 'disk'},workdir={folder / 'work'}"
    command("mount", "-t", "overlay", "overlay", "-o", layers, folder / "root")
    try:
        yield folder / "root"
    finally:
        command("umount", "--recursive", folder / "root")
        shutil.rmtree(folder)
