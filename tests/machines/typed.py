"""An administrator: types what README and manual say, as a user of the machine who has sudo."""

import re
import subprocess
from pathlib import Path

from tests.machines.federation import PIP
from tests.machines.hosts import MEDIA, Host
from tests.machines.roots import ROOT, MachineError

README = ROOT / "README.md"
MANUAL = ROOT / "docs/operations.md"
NAME = "admin"


def shown(document: Path, heading: str) -> list[str]:
    """Return the commands in the code blocks below `heading`, as they are written, without comments."""
    text = document.read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,6}} |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise MachineError(f"{document.name} has no section {heading!r}; change what the machines type")
    blocks = re.findall(r"^```\n(.*?)^```", found[2], re.MULTILINE | re.DOTALL)
    lines = [re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def shown_with(document: Path, heading: str, words: str) -> str:
    """Return the one command below `heading` that has `words` in it."""
    found = [line for line in shown(document, heading) if words in line]
    if len(found) != 1:
        raise MachineError(f"{document.name}, {heading}: {len(found)} commands with {words!r}: {found}")
    return found[0]


def hire(host: Host) -> None:
    """Make the account, with sudo and a mask that lets nobody else read; let pip find the wheels."""
    host.run("useradd", "--create-home", "--shell", "/bin/bash", NAME)
    host.run("sh", "-c", f"echo '{NAME} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{NAME}")
    host.run("sh", "-c", f"echo 'umask 077' >> /home/{NAME}/.profile")
    settings = "\n".join(["[global]", *(f"{name} = {value}" for name, value in PIP.items())])
    host.run("sh", "-c", f"printf '{settings}\n' > /etc/pip.conf")


def type_in(host: Host, line: str, *, folder: str = MEDIA) -> str:
    """Type one command in `folder`; returns what it says. Raises MachineError where it fails."""
    done = attempt(host, line, folder=folder)
    if done.returncode != 0:
        raise MachineError(f"{NAME} typed {line!r}: exit code {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def attempt(host: Host, line: str, *, folder: str = MEDIA) -> "subprocess.CompletedProcess[str]":
    """Type one command that may fail."""
    return host.run("runuser", "--login", NAME, "--command", f"cd '{folder}' && {line}", check=False)
