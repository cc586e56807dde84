"""Machines to install on: Debian roots that boot the real systemd, each in a network namespace of its own.

Needs root, debootstrap and systemd-nspawn. A machine's disk is a layer over a common, read-only root.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.machines.roots import MachineError, command

MEDIA = "/media/a clone of fedpi"
"""Where a machine finds the clone, and beside it the wheels."""
LAN = "fedpi-lan"
CGROUPS = Path("/sys/fs/cgroup")
BOOT_S = 60.0


@contextlib.contextmanager
def network() -> Iterator[None]:
    """A switch in a namespace of its own, so that nothing of this machine's network changes."""
    command("ip", "netns", "delete", LAN, check=False)
    command("ip", "netns", "add", LAN)
    try:
        command("ip", "-netns", LAN, "link", "add", "switch", "type", "bridge")
        command("ip", "-netns", LAN, "link", "set", "switch", "up")
        yield
    finally:
        command("ip", "netns", "delete", LAN)


@dataclass
class Host:
    """One machine. `folder` holds its disk; `base` is the root below it."""

    name: str
    address: str
    base: Path
    folder: Path
    binds: dict[Path, str]
    names: dict[str, str] = field(default_factory=dict)
    """Host names that it knows, and their addresses."""
    _process: subprocess.Popen[bytes] | None = None

    @property
    def root(self) -> Path:
        """Its file system, as seen from here."""
        return self.folder / "root"

    def plug_in(self) -> None:
        """Mount the disk and lay the cable."""
        for part in ("disk", "work", "root"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        layers = f"lowerdir={self.base},upperdir={self.folder / 'disk'},workdir={self.folder / 'work'}"
        command("umount", "--recursive", self.root, check=False)
        command("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        lines = [f"{address} {name}" for name, address in {"localhost": "127.0.0.1", **self.names}.items()]
        (self.root / "etc/hosts").write_text("\n".join(lines) + "\n", encoding="ascii")
        (self.root / "etc/hostname").write_text(f"{self.name}\n", encoding="ascii")
        command("ip", "netns", "delete", self._namespace, check=False)
        command("ip", "netns", "add", self._namespace)
        ours, theirs = f"to-{self.name}", "eth0"
        command("ip", "-netns", LAN, "link", "add", ours, "type", "veth", "peer", theirs, "netns", self._namespace)
        command("ip", "-netns", LAN, "link", "set", ours, "master", "switch", "up")
        command("ip", "-netns", self._namespace, "address", "add", f"{self.address}/24", "dev", theirs)
        for device in ("lo", theirs):
            command("ip", "-netns", self._namespace, "link", "set", device, "up")

    def unplug(self) -> None:
        """End whatever runs; leave the disk."""
        self.cut_power()
        for group in self._groups():
            _remove(group)
        command("ip", "netns", "delete", self._namespace, check=False)
        command("umount", "--recursive", self.root, check=False)

    def boot(self) -> float:
        """Switch it on; returns the seconds until systemd has started everything."""
        began = time.monotonic()
        words = ["systemd-nspawn", "--quiet", f"--directory={self.root}", "--boot", "--register=no", "--keep-unit"]
        words += [f"--machine={self.name}", f"--network-namespace-path=/run/netns/{self._namespace}"]
        words += ["--console=read-only", "--link-journal=no", "--resolv-conf=off", "--timezone=off"]
        words += [f"--bind-ro={here}:{there}" for here, there in self.binds.items()]
        # In control groups of its own: machines must not share them, and this one may be given little memory.
        enter = "".join(f"echo $$ > {group}/cgroup.procs; " for group in self._groups(is_new=True)) + 'exec "$@"'
        with (self.folder / "console.log").open("ab") as console:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", enter, "sh", *words],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self.wait_until_up()
        return time.monotonic() - began

    def wait_until_up(self) -> None:
        """Wait until systemd has started everything; raises MachineError when that takes too long."""
        end = time.monotonic() + BOOT_S
        while time.monotonic() < end:
            with contextlib.suppress(MachineError):
                state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
                if state in {"running", "degraded"}:
                    return
            time.sleep(0.2)
        raise MachineError(f"{self.name} has not booted in {BOOT_S:g} s; see {self.folder / 'console.log'}")

    def reboot(self) -> None:
        """Restart it in order, and wait until it is up."""
        before, end = self._init(), time.monotonic() + BOOT_S
        self.run("systemctl", "reboot", check=False)
        while self._process is not None and self._process.poll() is None and self._init() in {before, None}:
            if time.monotonic() > end:
                raise MachineError(f"{self.name} does not go down")
            time.sleep(0.1)
        if self._process is None or self._process.poll() is not None:
            self.boot()  # where nspawn leaves that to its own service manager
        else:
            self.wait_until_up()

    def cut_power(self) -> None:
        """End every process of the machine at once."""
        if self._process is None:
            return
        for pid in (self._init(), self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def run(self, *words: str, check: bool = True, timeout_s: float = 900.0) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine, as root in a bare environment."""
        init = self._init()
        if init is None:
            raise MachineError(f"{self.name} does not run")
        enter = ["nsenter", f"--target={init}", "--all"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return command(*enter, "env", "-i", "--chdir=/", path, "LANG=C.UTF-8", *words, check=check, timeout_s=timeout_s)

    def show(self, unit: str, name: str) -> str:
        """Read one property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def main_pid(self, unit: str) -> int:
        """Return the process that a unit is about; 0 where it has none."""
        return int(self.show(unit, "MainPID") or 0)

    def invocation(self, unit: str) -> str:
        """Return what names this start of a unit, unlike any other start; empty before the first."""
        return self.show(unit, "InvocationID")

    def entries(self, *matches: str) -> list[dict[str, str]]:
        """Read the journal's entries that match, as `FIELD=value`."""
        said = self.run("journalctl", "--output=json", "--no-pager", *matches).stdout
        return [json.loads(line) for line in said.splitlines()]

    def limit_memory(self, byte_count: int | None) -> bool:
        """Make it a machine of so much memory (None: of all); returns whether that can be done here."""
        group = self._memory_group()
        if group is None:
            return False
        (group / "memory.limit_in_bytes").write_text(str(-1 if byte_count is None else byte_count), encoding="ascii")
        return True

    def used_memory(self) -> int:
        """Return the bytes that its processes hold, without what the kernel could give back; 0 if nobody counts."""
        group = self._memory_group()
        if group is None:
            return 0
        fields = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return int(fields["total_rss"])

    @property
    def _namespace(self) -> str:
        return f"fedpi-{self.name}"

    def _init(self) -> int | None:
        """Return the machine's first process, by its number here."""
        if self._process is None:
            return None
        pid = self._process.pid
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
            return int(children[0]) if children else None
        return None

    def _groups(self, *, is_new: bool = False) -> list[Path]:
        """Return its control groups, below our own: systemd's, the second version's, memory's, as far as there are."""
        found = []
        for line in _lines("/proc/self/cgroup"):
            _, controller, ours = line.split(":", 2)
            mounted = {"": "unified" if (CGROUPS / "unified").is_dir() else "", "name=systemd": "systemd"}
            above = CGROUPS / mounted.get(controller, controller) / ours.lstrip("/")
            if controller in {"", "name=systemd", "memory"} and above.is_dir():
                found.append(above / f"fedpi-{self.name}")
        for group in found if is_new else ():
            group.mkdir(exist_ok=True)
        return found

    def _memory_group(self) -> Path | None:
        """Return the one of the first version that limits memory; None where that is not to be had."""
        return next((group for group in self._groups() if (group / "memory.limit_in_bytes").exists()), None)


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="ascii").splitlines()


def _remove(group: Path) -> None:
    """Remove a control group and those below it; processes that were killed take a moment to go."""
    for _ in range(50):
        try:
            for below in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
                below.rmdir()
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
