"""An administrator upgrades the hub, goes back after a round, exports as root, by the commands of the documents."""

import json
import time
from collections.abc import Callable
from typing import Any

from coordinator import schema
from tests.machines.federation import Federation
from tests.machines.hosts import Host
from tests.machines.roots import MachineError
from tests.machines.trials import NEXT, change_next, wait_for_commit
from tests.machines.typed import MANUAL, NAME, README, shown, shown_with, type_in

STATE = "/var/lib/fedpi"
NEWER_FORM = {
    f"VERSION = {schema.VERSION}\n": f"VERSION = {schema.VERSION + 1}\n",
    "UPGRADES = {\n": f'UPGRADES = {{\n    {schema.VERSION}: "ALTER TABLE rounds ADD COLUMN news TEXT",\n',
}
SAME_FORM = {'"""The journal\'s tables': '"""The tables of the journal'}


def run_all(federation: Federation, tell: Callable[[str], None]) -> dict[str, Any]:
    """Upgrade and go back, with a journal that changes its form and with one that does not; export; returns figures."""
    report: dict[str, Any] = {}
    for name, changes, told in (
        ("a newer form of the journal", NEWER_FORM, "They are undone"),
        ("the same form of the journal", SAME_FORM, "They stay"),
    ):
        report[name] = upgrade_and_go_back(federation, changes, told)
        tell(f"Upgraded to {name}, a round, gone back: {report[name]}")
    use_tools(federation.hub)
    report["export as root"] = export_as_root(federation)
    tell(f"Exported as root, restarted: {report['export as root']}")
    return report


def upgrade_and_go_back(federation: Federation, changes: dict[str, str], told: str) -> dict[str, Any]:
    """Commit a round between upgrade and going back: what becomes of it must be said, and be so; rounds must go on."""
    hub, before = federation.hub, federation.last_round()
    change_next(hub, "coordinator/schema.py", changes)
    began = time.monotonic()
    for line in shown(MANUAL, "Upgrade"):
        type_in(hub, line, folder=NEXT)
    upgraded = round(time.monotonic() - began, 1)
    type_in(hub, shown_with(README, "Coordinator", " start "))
    newest = federation.last_round()
    began = time.monotonic()
    (line,) = shown(MANUAL, "Go back to the earlier version")
    said = type_in(hub, line, folder=NEXT)
    gone_back = round(time.monotonic() - began, 1)
    sentence = next((line for line in said.splitlines() if line.startswith("Rounds that were committed")), "")
    is_undone = told == "They are undone"
    if told not in sentence or not all(f" {number}" in sentence for number in range(before + 1, newest + 1)):
        raise MachineError(f"what becomes of rounds {before + 1} to {newest} is not said: {said}")
    if federation.last_round() != (before if is_undone else newest):
        raise MachineError(f"after {sentence!r} the last round is {federation.last_round()}")
    if is_undone and not hub.run("sh", "-c", f"ls {STATE}/undone-*/journal.sqlite", check=False).stdout:
        raise MachineError("the journal of the undone rounds is not kept")
    go_on(federation)
    return {"upgrade_s": upgraded, "back_s": gone_back, "said": sentence}


def use_tools(hub: Host) -> None:
    """Split a folder of images and draw the rounds: what the programs of the coordinator's machine must bring."""
    home = f"/home/{NAME}"
    hub.run("cp", "--recursive", "/srv/images", f"{home}/images")
    hub.run("chown", "--recursive", NAME, home)
    for words in (" split ", " plot "):
        line = shown_with(README, "Coordinator", words)
        type_in(hub, line, folder=home)
        out = line.partition("--out ")[2].split()[0]
        if not hub.run("find", f"{home}/{out}", "-type", "f").stdout:
            raise MachineError(f"{line}: {out} is empty")


def export_as_root(federation: Federation) -> str:
    """Export by sudo, as the README shows it; the service must start again, hand the release out, and go on."""
    hub = federation.hub
    said = type_in(hub, shown_with(README, "Coordinator", " export "))
    old = hub.invocation("fedpi-coordinator")
    type_in(hub, "sudo systemctl restart fedpi-coordinator")
    federation.wait_for("the coordinator back", lambda: hub.invocation("fedpi-coordinator") not in {"", old})
    go_on(federation)
    if foreign := hub.run("find", f"{STATE}/coordinator", "-user", "root").stdout.split():
        raise MachineError(f"files of root's are left among the coordinator's: {foreign}")
    release = said.partition("Release ")[2].partition(":")[0]
    federation.wait_for("the release on every device", lambda: all(_serves(hub, release)))
    return release


def go_on(federation: Federation) -> None:
    """Run rounds with both devices."""
    hub, before, began = federation.hub, federation.last_round(), time.monotonic()
    federation.wait_for("both devices", lambda: len(_devices(hub)) == 2)
    type_in(hub, shown_with(README, "Coordinator", " start "))
    wait_for_commit(federation, before, began)


def _devices(hub: Host) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(type_in(hub, f"{shown_with(README, 'Coordinator', ' devices')} --json"))
    return [row for row in rows if row["state"] == "online"]


def _serves(hub: Host, release: str) -> list[bool]:
    return [row["release"] == release for row in _devices(hub)] or [False]
