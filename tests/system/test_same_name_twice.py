"""Two coordinators of one federation, and two machines with one device's keys: signed, over a real broker."""

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from common.topics import Kind, topic
from common.yaml_text import dump
from coordinator.rehearsal.federation import FEDERATION, Process
from coordinator.store import Store
from tests.system.secured import SecuredFederation

pytestmark = pytest.mark.system

EXAMPLES = {"rpi1": 7, "rpi2": 9}
STATUS = topic(Kind.COORD_STATUS, FEDERATION)
WRONG = 78
FUTURE = 4_000_000_000
"""An epoch that a machine with a clock in the future would sign with."""


@pytest.fixture
def live(tmp_path: Path) -> Iterator[SecuredFederation]:
    with SecuredFederation(tmp_path, EXAMPLES) as federation:
        yield federation


def options_of(live: SecuredFederation, name: str) -> dict[str, Any]:
    import yaml

    loaded: dict[str, Any] = yaml.safe_load(live.config(name).read_text(encoding="utf-8"))
    return loaded


def copy_of(live: SecuredFederation, name: str, command: list[str], *flags: str) -> Process:
    """Start a process on another machine: with the configuration and the keys of `name`, and a state of its own."""
    config = live.folder / "config" / f"{name}-copy.yaml"
    config.write_text(dump({**options_of(live, name), "state": str(live.folder / f"{name}-copy")}), encoding="utf-8")
    process = Process(
        f"{name}-copy", [*command, "--config", str(config), *flags], live.folder / "logs" / f"{name}-copy.log"
    )
    live.processes[process.name] = process
    return process


def end_of(live: SecuredFederation, name: str, timeout_s: float) -> str:
    """Wait for the exit code 78; returns the last line of the log."""
    process = live.processes.pop(name)
    assert process.wait(timeout_s) == WRONG
    return process.log.read_text(encoding="utf-8").splitlines()[-1]


def set_epoch(live: SecuredFederation, name: str, epoch: int) -> None:
    (live.folder / name).mkdir(exist_ok=True)
    (live.folder / name / "epoch").write_text(str(epoch), encoding="ascii")


@contextmanager
def statuses(live: SecuredFederation) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Listen to the coordinators' statuses; what it yields returns those that came since the start."""
    found: list[dict[str, Any]] = []
    with live.log_in(live.coordinator["broker"], "onlooker") as connection:
        connection.subscribe(STATUS)

        def look() -> list[dict[str, Any]]:
            found.extend(json.loads(message.payload) for message in connection.collect(100, 0.1, 5.0))
            return found

        yield look


SERVE, RUN = ["-m", "coordinator", "serve"], ["-m", "device", "run"]


def test_one_coordinator_is_left_whatever_an_operator_starts(live: SecuredFederation) -> None:
    set_epoch(live, "coordinator", FUTURE)  # devices will have heard more than a second machine's clock says
    live.begin("mosquitto")
    with statuses(live) as told:
        copy_of(live, "coordinator", SERVE)
        assert "another coordinator serves the federation" in end_of(live, "coordinator-copy", 20.0)
        (row,) = live.run()
        assert row.phase == "committed"
        assert len({status["epoch"] for status in told()}) == 1  # the devices never heard of the second
        assert {status["state"] for status in told()} == {"online"}

        copy_of(live, "coordinator", SERVE, "--take-over")
        assert "another coordinator has taken over" in end_of(live, "coordinator", 20.0)
    store = Store(live.folder / "coordinator-copy" / "journal.sqlite")
    live.until(lambda: sum(d.state == "online" for d in store.devices()) == len(EXAMPLES), "the devices stayed away")
    number = store.ask_for(1)
    live.until(lambda: store.active_run() is None, "the run was not over")
    assert [row.phase for row in store.rounds()] == ["committed"], store.ledger(number)


def test_two_coordinators_that_meet_while_they_run_warn_and_open_no_round_until_one_stops(
    live: SecuredFederation,
) -> None:
    live.begin("mosquitto")
    live.processes["coordinator"].send(signal.SIGSTOP)
    copy_of(live, "coordinator", SERVE)
    with statuses(live) as told:
        live.until(lambda: len({status["epoch"] for status in told()}) == 2, "the second coordinator did not run")
        live.processes["coordinator"].send(signal.SIGCONT)
        for name in ("coordinator", "coordinator-copy"):
            live.until_logged(name, "another coordinator serves the federation")
        live.until(lambda: told()[-1].get("others") == 1, "no status told of the other")
    first = live.ask()
    shown = live.command("status").stdout
    assert "another coordinator serves the federation" in " ".join(shown.split())
    assert live.store.last_round() == first - 1
    live.processes.pop("coordinator-copy").stop()
    (row,) = live.finish(first)
    assert row.phase == "committed"


@pytest.mark.parametrize("later", ["rpi1", "rpi1-copy"])
def test_of_two_machines_with_one_devices_keys_one_ends(live: SecuredFederation, later: str) -> None:
    """Whichever signs with the earlier epoch is not heard any more, so it is the one that ends."""
    set_epoch(live, later, FUTURE)
    live.begin("mosquitto")
    copy_of(live, "rpi1", RUN)
    earlier = ({"rpi1", "rpi1-copy"} - {later}).pop()
    assert "another process speaks as rpi1" in end_of(live, earlier, 15.0)
    (row,) = live.run()
    assert (row.phase, row.reported) == ("committed", tuple(EXAMPLES))
