"""`python -m tests.faults.launcher FOLDER coordinator serve ...`: one of fedpi's processes, with places to strike at.

FOLDER/fault.json names a place, how often it is to be reached, and what happens then (`Fault`); once it has, the file
is called struck.json. FOLDER/clock holds seconds to add to the wall clock. FEDPI_PLANT names a bug of `plants` to
plant. The places are calls of the product's own functions, wrapped here: the product knows nothing of them.
"""

import contextlib
import functools
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import yaml

from tests.faults.power import Disk

CONTROL, STRUCK, CLOCK, FILLER = "fault.json", "struck.json", "clock", "filler"
BLOCK = 4096
NOT_A_NUMBER = bytes.fromhex("0000c07f")
Action: TypeAlias = Literal["kill", "cut", "fill", "spoil"]


class Fault(msgspec.Struct, frozen=True):
    """What to do when `place` is reached for the `nth` time: end as by SIGKILL, or as by a power cut, fill the disk
    except for `slack` bytes, or put a number that is none into the update that was trained."""

    place: str
    nth: int = 1
    action: Action = "kill"
    seed: int = 0
    slack: int = 0


class Striker:
    """Looks at every place whether it is the one."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.disk = Disk(state)
        self._folder = folder
        self._state = state
        self._armed: tuple[int, Fault] | None = None
        self._seen = 0

    def reached(self, place: str, prepare: Callable[[], object] = lambda: None) -> None:
        """Say that `place` is reached; `prepare` is called before the blow falls."""
        try:
            stamp = (self._folder / CONTROL).stat().st_mtime_ns
        except FileNotFoundError:
            return
        if self._armed is None or self._armed[0] != stamp:
            self._armed = stamp, msgspec.json.decode((self._folder / CONTROL).read_bytes(), type=Fault)
            self._seen = 0
        fault = self._armed[1]
        self._seen += fault.place == place
        if fault.place == place and self._seen == fault.nth:
            prepare()
            (self._folder / CONTROL).rename(self._folder / STRUCK)
            self._strike(fault)

    def _strike(self, fault: Fault) -> None:
        match fault.action:
            case "fill":
                fill(self._state / FILLER, fault.slack)
            case "spoil":
                with (self._state / "update.tmp").open("r+b") as draft:
                    draft.write(NOT_A_NUMBER)
            case "cut" | "kill":
                if fault.action == "cut":
                    self.disk.cut(fault.seed)
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60.0)  # for the other threads' sake: the signal comes at once


def fill(path: Path, slack: int) -> None:
    """Fill the file system of `path` except for `slack` bytes."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        state = os.statvfs(path)
        os.posix_fallocate(file.fileno(), 0, max(state.f_bavail * state.f_frsize - slack, 1))
        file.seek(0, os.SEEK_END)
        while not slack:
            file.write(bytes(BLOCK))


def shift_clock(folder: Path) -> None:
    """Let the file `clock` set the wall clock of this process; monotonic time goes on as it does."""
    real = time.time

    def shifted() -> float:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return real() + float((folder / CLOCK).read_text(encoding="ascii"))
        return real()

    time.time = shifted


def wrap(owner: Any, name: str, striker: Striker, place: Callable[..., str]) -> None:
    """Make the begin and the end of a function places: `place(*arguments)` before it, and after it."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        where = place(*arguments)
        striker.reached(f"{where} before")
        result = original(*arguments, **options)
        striker.reached(f"{where} after")
        return result

    setattr(owner, name, wrapped)


def wrap_blobs(striker: Striker) -> None:
    """The places of every blob store, by the name of its folder."""
    from common.blobs import BlobStore

    def place_of(name: str) -> Callable[..., str]:
        def place(store: Any, *_: Any) -> str:
            root: Path = store._root  # noqa: SLF001 - a test looks inside
            return f"{root.parent.name if root.parent.name == 'updates' else root.name}.{name.strip('_')}"

        return place

    for name in ("prepare", "write", "finish", "add", "add_blocks", "_publish", "sync", "read"):
        wrap(BlobStore, name, striker, place_of(name))


def wrap_device(striker: Striker) -> None:
    """The places of a device: everything that it writes, trains or says."""
    from device.daemon import Daemon
    from device.store import DeviceStore
    from device.voice import Voice

    for name in ("keep_offer", "secure", "drop_update", "install"):
        wrap(DeviceStore, name, striker, lambda *_, name=name: name)
    wrap(Daemon, "_train", striker, lambda *_: "train")
    wrap(Voice, "say", striker, lambda _, message: f"say {type(message).__name__}")


def wrap_coordinator(striker: Striker) -> None:
    """The places of the coordinator: every edge of a round, and everything that it writes beside that."""
    from coordinator.store import Store

    wrap_edges(striker)
    for name in ("save", "go_on", "end_run", "set_fact", "see_devices"):
        wrap(Store, name, striker, lambda *_, name=name: f"journal.{name}")
    for name in ("go_on", "end_run", "set_fact"):
        _note_durable(Store, name, striker, lambda *_: True)
    _note_durable(Store, "save", striker, lambda _, round_, *_rest: round_.phase.value in {"committed", "abandoned"})
    # A run that is new to the coordinator was written by the operator's process, which waited for the disk.
    _note_durable(Store, "active_run", striker, lambda run: run is not None and run.state == "queued")


def _note_durable(owner: Any, name: str, striker: Striker, is_durable: Callable[..., bool]) -> None:
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(store: Any, *arguments: Any) -> Any:
        result = original(store, *arguments)
        if is_durable(result, *arguments):
            striker.disk.note_commit()
        return result

    setattr(owner, name, wrapped)


def wrap_edges(striker: Striker) -> None:
    """Each edge is named `Event phase>phase`, or `begin` and `resume`; its places: before, saved, half and spoken.

    Before the save, between save and speaking, after the first command of several, after all of them. A step that
    changes something and commands nothing has only the last one.
    """
    from coordinator import round as rounds
    from coordinator.service import Service

    names: list[str] = [""]
    rounds.begin = _naming(names, rounds.begin, lambda *_: "begin")
    rounds.resume = _naming(names, rounds.resume, lambda *_: "resume")
    rounds.step = _naming(names, rounds.step, _edge)
    entered, saved, executed = Service._enter, Service._save, Service._execute  # noqa: SLF001 - a test looks inside
    open_edges: list[str] = []

    def enter(self: Any, before: Any, after: Any, commands: Any) -> None:
        open_edges.append(names[0])
        entered(self, before, after, commands)
        edge = open_edges.pop()
        striker.reached(f"{edge} spoken", lambda: self._voice._control.drain(0.2))  # noqa: SLF001 - as above

    def save(self: Any, round_: Any) -> None:
        edge = open_edges[-1] if open_edges else "news"
        striker.reached(f"{edge} before")
        saved(self, round_)
        striker.reached(f"{edge} saved")

    def execute(self: Any, command: Any) -> None:
        edge = open_edges[-1]
        executed(self, command)
        striker.reached(f"{edge} half")

    Service._enter, Service._save, Service._execute = enter, save, execute  # type: ignore[method-assign]  # noqa: SLF001 - as above


def _naming(names: list[str], function: Callable[..., Any], name: Callable[[Any, Any, Any], str]) -> Callable[..., Any]:
    """Let `function` leave the name of the edge that it took in `names`."""

    def named(before: Any, *arguments: Any) -> Any:
        after, commands = function(before, *arguments)
        names[0] = name(before, arguments[0], after) if commands or after is not before else ""
        return after, commands

    return named


def _edge(before: Any, event: Any, after: Any) -> str:
    from coordinator.events import Failed

    refused = [m for m in after.members if m.standing.value == "refused"]
    if len(refused) > len([m for m in before.members if m.standing.value == "refused"]):
        return f"{type(event).__name__} refused"
    if isinstance(event, Failed):  # the round waits for others, or for nobody: what comes faster
        return "Failed"
    return f"{type(event).__name__} {before.phase.value}>{after.phase.value}"


def main() -> None:
    """Set everything up and run the command of fedpi."""
    folder, room, command = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    state = yaml.safe_load(Path(command[-1]).read_text(encoding="utf-8"))["state"]
    if bug := os.environ.get("FEDPI_PLANT"):
        from tests.faults.plants import plant

        plant(bug)
    striker = Striker(folder, Path(state))
    shift_clock(folder)
    wrap_blobs(striker)
    (wrap_coordinator if room == "coordinator" else wrap_device)(striker)
    importlib.import_module(f"{room}.cli").main(command, prog_name=f"fedpi-{room}")


if __name__ == "__main__":
    main()
