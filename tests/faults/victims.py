"""Processes under the launcher: how a row arms a fault in one, waits for it, and starts the process again."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec
import yaml

from common.errors import WorkError
from coordinator.rehearsal.federation import Process
from tests.faults.arena import WAIT_S, Arena, NotSurvivedError
from tests.faults.launcher import CLOCK, CONTROL, STRUCK, Fault
from tests.faults.passing import COORDINATOR


def launch(arena: Arena, name: str) -> None:
    """Start a process under the launcher, in place of the one that runs."""
    if name in arena.processes:
        arena.processes.pop(name).kill()
    _folder(arena, name).mkdir(parents=True, exist_ok=True)
    room, verb = ("coordinator", "serve") if name == COORDINATOR else ("device", "run")
    command = [str(_folder(arena, name)), room, verb, "--config", str(arena.config(name))]
    log = arena.folder / "logs" / f"{name}.log"
    arena.processes[name] = Process(name, ["-m", "tests.faults.launcher", *command], log)


def is_launched(arena: Arena, name: str) -> bool:
    """Whether it was ever started under the launcher: it is, then, ever since."""
    return _folder(arena, name).exists()


def arm(arena: Arena, name: str, fault: Fault) -> None:
    """Let `fault` strike in a process that runs, or in the next one."""
    draft = _folder(arena, name) / "draft"
    draft.parent.mkdir(parents=True, exist_ok=True)
    (draft.parent / STRUCK).unlink(missing_ok=True)
    draft.write_bytes(msgspec.json.encode(fault))
    draft.rename(draft.parent / CONTROL)


def disarm(arena: Arena, name: str) -> None:
    """Forget a fault that has not struck."""
    (_folder(arena, name) / CONTROL).unlink(missing_ok=True)


def has_struck(arena: Arena, name: str) -> bool:
    """Whether the fault that was armed last has struck."""
    return (_folder(arena, name) / STRUCK).exists()


def await_strike(arena: Arena, name: str, what: str) -> None:
    """Wait until the fault strikes. Raises NotSurvivedError."""
    arena.until(lambda: has_struck(arena, name), f"{name} to reach: {what}")


def await_end(arena: Arena, name: str, what: str) -> None:
    """Wait until the process has ended by its fault; it is no longer among those that must run."""
    process, end = arena.processes.pop(name), time.monotonic() + WAIT_S
    while time.monotonic() < end:
        try:
            process.check()
            arena.check()
        except WorkError as error:
            if not has_struck(arena, name):
                raise NotSurvivedError(f"{error}; it should have been killed at: {what}") from error
            process.kill()
            return
        time.sleep(0.01)
    process.kill()
    raise NotSurvivedError(f"{name} did not reach in {WAIT_S:g} s: {what}")


def set_clock(arena: Arena, offset_s: float, names: Collection[str]) -> None:
    """Let the wall clocks of processes under the launcher be `offset_s` away from the true one."""
    for name in names:
        draft = _folder(arena, name) / "clock.tmp"
        draft.write_text(str(offset_s), encoding="ascii")
        draft.rename(draft.with_name(CLOCK))


def reconfigure(arena: Arena, name: str, **sections: Any) -> None:
    """Change keys of sections in a configuration file; the next process reads them."""
    path = arena.config(name)
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, change in sections.items():
        document[section] = {**document.get(section, {}), **change} if isinstance(change, dict) else change
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def _folder(arena: Arena, name: str) -> Path:
    return arena.folder / "launched" / name
