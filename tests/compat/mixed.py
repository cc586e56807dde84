"""A signed federation of processes that run several versions of fedpi, each installed."""

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coordinator.rehearsal.federation import Process
from tests.system.conftest import NO_OPTIONS, WAIT_S
from tests.system.secured import SecuredFederation

BECOME = "import os, sys; os.environ.pop('PYTHONPATH', None); os.execv(sys.argv[1], sys.argv[1:])"
"""Run a program that finds no fedpi but the one that is installed where it is."""


class MixedFederation(SecuredFederation):
    """`pythons` has, by the name of a process, the Python of the version that it runs; the others run this one.

    What the coordinator knows is asked by its own commands: its journal is of its version.
    """

    def __init__(self, folder: Path, examples: dict[str, int], pythons: Mapping[str, Path]) -> None:
        super().__init__(folder, examples)
        self.pythons = pythons

    def open_up(self, round_: Mapping[str, Any] = NO_OPTIONS, **sections: Mapping[str, Any]) -> None:
        """Start everything and wait until it is online. Rounds that not all devices finish are void soon."""
        count = len(self.examples)
        limits = {"goal": count, "minimum": count, "selection_s": WAIT_S / 4, "deadline_s": WAIT_S / 2}
        self.launch("mosquitto", round={**limits, **round_}, **sections)
        end = time.monotonic() + WAIT_S
        while not self._is_online():
            self.check()
            assert time.monotonic() < end, f"not all devices came online; logs: {self.folder}/logs"

    def commit(self) -> dict[str, Any]:
        """Run a round, which must be committed; returns it."""
        (row,) = self.shown("start")["rounds"]
        assert row["phase"] == "committed", row["reason"]
        found: dict[str, Any] = row
        return found

    def standings(self, number: int) -> dict[str, tuple[str, str]]:
        """Return how every device stands in a round, and why."""
        rows = self.shown("rounds", "--round", str(number))["ledger"]
        return {row["device"]: (row["standing"], row["reason"]) for row in rows}

    def shown(self, *command: str) -> Any:
        """Return what a command of the coordinator's version prints as JSON."""
        done = self.command(*command, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def cli(self, *command: str) -> "subprocess.Popen[str]":
        """Start a command of `fedpi-coordinator`, of the coordinator's version."""
        python = self.pythons.get("coordinator")
        if python is None:
            return super().cli(*command)
        line = [str(python), "-I", "-m", "coordinator", *command, "--config", str(self.config("coordinator"))]
        pipe = subprocess.PIPE
        return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True)

    def complaints(self) -> list[str]:
        """Return the errors that processes logged, and what they took for no message of the protocol."""
        logs = {name: self.log(name) for name in self.processes if name != "broker"}
        lines = [f"{name}: {line}" for name, log in logs.items() for line in log.splitlines()]
        return [line for line in lines if any(word in line for word in ("Traceback", "ERROR", "refused="))]

    def _is_online(self) -> bool:
        done = self.command("devices", "--json")
        rows = json.loads(done.stdout) if done.returncode == 0 else []
        return {row["device"] for row in rows if row["state"] == "online"} == set(self.examples)

    def _start(self, name: str, command: list[str]) -> Process:
        if (python := self.pythons.get(name)) is None:
            return super()._start(name, command)
        line = ["-c", BECOME, str(python), "-P", "-m", *command]
        self.processes[name] = Process(name, line, self.folder / "logs" / f"{name}.log")
        return self.processes[name]
