"""`python -m tests.machines`: install fedpi on three Debian machines, run rounds, let every fault befall them, and
do what docs/operations.md tells people to do.

Needs root, debootstrap and systemd-container, and about 12 GB below --folder. Writes report.json.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from tests.machines import manual, trials, upgrading
from tests.machines.emulated import EMULATOR, try_emulated
from tests.machines.federation import (
    ADDRESSES,
    EXPORTED,
    WHEELS,
    Federation,
    configure_device,
    configure_hub,
    draw_images,
    enroll,
    hand_out,
    install,
)
from tests.machines.hosts import MEDIA, Host, network
from tests.machines.roots import ROOT, SUITES, MachineError, System, fetch_wheels, find_mirror, make_root, take_clone
from tests.machines.typed import README, hire, shown_with, type_in

ROLES = {"hub": ("broker", "coordinator"), "rpi1": ("device", "inference"), "rpi2": ("device", "inference")}
PARTS = ("trials", "upgrade", "manual")
TOOLS = ("debootstrap", "systemd-nspawn", "ip", "nsenter")
WANTED = "prometheus_client"
"""A package that no device needs: what an administrator asks for in requirements.txt."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    folder: Path
    system: System
    is_kept: bool
    with_arm64: bool
    skipped: tuple[str, ...] = ()


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / "build/machines", help="Roots and disks.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=ROOT / "runs/system-test", help="Where report.json goes."
)
@click.option(
    "--suite", type=click.Choice(list(SUITES)), default="bookworm", show_default=True, help="Debian's release."
)
@click.option("--mirror", help="Where Debian's packages are [default: where apt on this machine finds them]")
@click.option("--arm64", is_flag=True, help="Install on an emulated arm64 machine too; that is slow.")
@click.option("--skip", multiple=True, type=click.Choice(PARTS), help="Leave a part out; repeat it.")
@click.option("--keep", is_flag=True, help="Leave the machines' disks where they are.")
def main(folder: Path, out: Path, suite: str, mirror: str | None, **flags: Any) -> None:
    """Run everything; exit code 1 and one sentence where something does not hold."""
    began = time.monotonic()

    def tell(text: str) -> None:
        click.echo(f"[{time.monotonic() - began:6.1f} s] {text}")

    report: dict[str, Any] = {"suite": suite}
    try:
        require_tools(with_arm64=flags["arm64"])
        system = System(suite, "amd64", mirror or find_mirror())
        plan = Plan(folder.absolute(), system, flags["keep"], flags["arm64"], flags["skip"])
        execute(plan, report, tell)
    except (MachineError, subprocess.TimeoutExpired) as error:
        report["failed"] = str(error)
        sys.exit(f"system-test: {error}")
    finally:
        report["seconds"] = round(time.monotonic() - began, 1)
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        tell(f"{out / 'report.json'} is written")


def require_tools(*, with_arm64: bool) -> None:
    """Raise MachineError where this machine lacks what it takes."""
    if os.geteuid() != 0:
        raise MachineError("this needs root")
    if missing := [name for name in TOOLS if shutil.which(name) is None]:
        raise MachineError(f"{', '.join(missing)} not found; apt install debootstrap systemd-container iproute2")
    if with_arm64 and not EMULATOR.exists():
        raise MachineError(f"{EMULATOR} is missing; install qemu-user-static, and mount binfmt_misc")


def execute(plan: Plan, report: dict[str, Any], tell: Tell) -> None:
    """Make the machines, and do everything on them."""
    folder = plan.folder
    tell(f"Making a root of {plan.system.suite}, fetching wheels")
    base, clone = make_root(folder, plan.system), take_clone(folder)
    binds = {clone: MEDIA, fetch_wheels(folder, plan.system): WHEELS}
    draw_images(folder / "images")
    with machines(plan, base, binds) as hosts:
        federation = begin(hosts, folder / "images", report, tell)
        if "trials" not in plan.skipped:
            report["trials"] = trials.run_all(federation, tell)
        if "upgrade" not in plan.skipped:
            report["upgrade"] = upgrading.run_all(federation, tell)
        if "manual" not in plan.skipped:
            report["manual_s"] = manual.run_all(federation, tell)
        check_uninstall(hosts["rpi2"])
        shutil.copy2(hosts["hub"].root / EXPORTED, folder / "model.tflite")
    if plan.with_arm64:
        tell("Installing on arm64")
        report["arm64"] = try_emulated(
            folder, replace(plan.system, architecture="arm64"), clone, folder / "model.tflite"
        )
        tell(f"arm64: {report['arm64']['infer']}")


def begin(hosts: dict[str, Host], images: Path, report: dict[str, Any], tell: Tell) -> Federation:
    """Install, enrol, run three rounds, install again."""
    hub, devices = hosts["hub"], [hosts["rpi1"], hosts["rpi2"]]
    report["boot_s"] = {host.name: round(host.boot(), 1) for host in hosts.values()}
    report["install_s"] = {}
    for host in hosts.values():
        hand_out(host, images)
        hire(host)
        began = time.monotonic()
        if host is hub:  # as the README has it; the others from the barest environment
            type_in(host, shown_with(README, "Install", " ".join(ROLES[host.name])))
        else:
            host.run("sh", "-c", f"mkdir /etc/fedpi; echo {WANTED} > /etc/fedpi/requirements.txt")
            install(host, *ROLES[host.name])
            host.run("/opt/fedpi/current/bin/python", "-c", f"import {WANTED}")
        report["install_s"][host.name] = round(time.monotonic() - began, 1)
        tell(f"{host.name}: {' and '.join(ROLES[host.name])} installed in {report['install_s'][host.name]} s")
    configure_hub(hub, "brain")
    for device in devices:
        enroll(hub, device)
        configure_device(device)
    report["exposure"] = {}
    for host in hosts.values():
        report["exposure"] |= examine_units(host)
    tell(f"Units verified; exposure: {report['exposure']}")
    federation = Federation(hub, tuple(devices))
    federation.start(3)
    report["first_round_s"] = round(federation.wait_for_phase("committed"), 1)
    federation.wait_for_phase("committed", after=2)
    report["rounds"] = federation.rounds()
    tell(f"3 rounds are committed, the first after {report['first_round_s']} s")
    federation.coordinator("export", "--release")
    report["again_s"] = check_idempotence(hosts["rpi1"])
    report["entries_with_round"] = len(hub.entries("_SYSTEMD_UNIT=fedpi-coordinator.service", "ROUND=1"))
    return federation


def examine_units(host: Host) -> dict[str, float]:
    """Let systemd verify the machine's units; returns how exposed it finds each, of 10."""
    exposure = {}
    for name in ROLES[host.name]:
        said = host.run("systemd-analyze", "verify", f"fedpi-{name}.service", f"fedpi-{name}.path")
        if said.stdout.strip() or said.stderr.strip():
            raise MachineError(f"fedpi-{name}: {said.stdout}{said.stderr}")
        host.run("systemd-analyze", "security", "--no-pager", "--threshold=20", f"fedpi-{name}.service")
        last = host.run("systemd-analyze", "security", "--no-pager", f"fedpi-{name}").stdout.strip().splitlines()[-1]
        exposure[f"fedpi-{name}"] = float(last.split(": ")[1].split()[0])
    return exposure


def check_idempotence(host: Host) -> float:
    """Install what is installed: nothing may start anew. Returns the seconds."""
    units = [f"fedpi-{name}" for name in ROLES[host.name]]
    before = [host.invocation(unit) for unit in units]
    took = install(host, *ROLES[host.name])
    if [host.invocation(unit) for unit in units] != before:
        raise MachineError("a second install.sh started services anew")
    return round(took, 1)


def check_uninstall(host: Host) -> None:
    """Remove the services: data stays. Then all of it: nothing does."""
    data = ("/etc/fedpi/device.yaml", "/var/lib/fedpi/device")
    for words, are_left in (((), True), (("--purge",), False)):
        install(host, "--uninstall", *words)
        if [(host.root / path.lstrip("/")).exists() for path in data] != [are_left] * 2:
            raise MachineError(f"install.sh --uninstall {' '.join(words)} did not leave what it should: {data}")
    left = host.run("sh", "-c", "ls -d /opt/fedpi /etc/systemd/system/fedpi* /usr/local/bin/fedpi*", check=False).stdout
    if left or host.run("id", "fedpi", check=False).returncode == 0:
        raise MachineError(f"install.sh --uninstall --purge left {left or 'the account'}")


@contextlib.contextmanager
def machines(plan: Plan, base: Path, binds: dict[Path, str]) -> Iterator[dict[str, Host]]:
    """Machines with empty disks and cables; gone afterwards, unless their disks are kept."""
    folder = plan.folder
    hosts = {name: Host(name, address, base, folder / name, binds, ADDRESSES) for name, address in ADDRESSES.items()}
    with network():
        try:
            for host in hosts.values():
                shutil.rmtree(host.folder, ignore_errors=True)
                host.plug_in()
            yield hosts
        finally:
            for host in hosts.values():
                host.unplug()
                if not plan.is_kept:
                    shutil.rmtree(host.folder)


if __name__ == "__main__":
    main()
