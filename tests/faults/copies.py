"""Second machines: a process with the configuration and the keys of another one, as from a copy of its disk."""

import contextlib
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from common.errors import ConfigError, WorkError
from coordinator.rehearsal.federation import Process
from tests.faults import victims
from tests.faults.arena import WAIT_S, Arena, NotSurvivedError
from tests.faults.passing import COORDINATOR

ENDED_S = 20.0
SERVES = "serves the federation "


def name_of_copy(name: str) -> str:
    """Return what the copy of a process is called: its state folder, its configuration, its log."""
    return f"{name}-copy"


@contextlib.contextmanager
def copy_of(arena: Arena, name: str, *, flags: Sequence[str] = (), **sections: Any) -> Iterator[Process]:
    """Run a second process of `name` with keys of `sections` changed; its state folder is whatever lies there.

    Nobody takes it amiss when the copy ends by itself: the row looks after that.
    """
    config = arena.config(name_of_copy(name))
    options = yaml.safe_load(arena.config(name).read_text(encoding="utf-8"))
    config.write_text(yaml.safe_dump({**options, "state": str(state_of_copy(arena, name))}), encoding="utf-8")
    victims.reconfigure(arena, name_of_copy(name), **sections)
    process = launch(arena, name, name_of_copy(name), flags)
    try:
        yield process
    finally:
        process.kill()


def launch(arena: Arena, name: str, named: str, flags: Sequence[str] = ()) -> Process:
    """Start the command of `name` with the configuration `named`, and say whose log it is."""
    command = ["coordinator", "serve"] if name == COORDINATOR else ["device", "run"]
    log = arena.folder / "logs" / f"{named}.log"
    return Process(named, ["-m", *command, "--config", str(arena.config(named)), *flags], log)


def state_of_copy(arena: Arena, name: str) -> Path:
    """Return the copy's state folder."""
    return arena.folder / name_of_copy(name)


def empty_copy(arena: Arena, name: str) -> None:
    """Let the next copy begin without a state: only keys and configuration were copied."""
    shutil.rmtree(state_of_copy(arena, name), ignore_errors=True)


def copy_state(arena: Arena, name: str) -> None:
    """Copy the state folder of a process that does not run."""
    empty_copy(arena, name)
    shutil.copytree(arena.folder / name, state_of_copy(arena, name))


def has_ended(process: Process) -> bool:
    """Whether a process ended with exit code 78. Raises WorkError where it ended otherwise."""
    try:
        process.check()
    except WorkError as error:
        if f"exit code {ConfigError.exit_code}:" not in str(error):
            raise
        return True
    return False


def await_end(arena: Arena, processes: Sequence[Process], timeout_s: float = ENDED_S) -> Process:
    """Wait until one of `processes`, none of which must run for the arena's sake, ended with exit code 78."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        for process in processes:
            if has_ended(process):
                return process
        arena.check()
        time.sleep(0.01)
    raise NotSurvivedError(f"neither of {', '.join(p.name for p in processes)} ended within {timeout_s:g} s")


def must_say(arena: Arena, process: Process, words: str, since: dict[Path, int]) -> None:
    """Raise NotSurvivedError unless a process has logged `words`, a regular expression."""
    if not re.search(words, arena.logged(process.name, since)):
        raise NotSurvivedError(f"{process.name} did not say {words!r} (log: {process.log})")


def await_words(arena: Arena, name: str, words: str, since: dict[Path, int], timeout_s: float = WAIT_S) -> None:
    """Wait until a process has logged `words`, a regular expression."""
    arena.until(lambda: re.search(words, arena.logged(name, since)), f"{name} to log {words!r}", timeout_s)
