"""`fedpi-coordinator` against a live federation: what an operator types, and what programs read."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from coordinator.rehearsal.federation import FEDERATION
from tests.system.conftest import WAIT_S, LiveFederation, initial_model

pytestmark = pytest.mark.system

EXAMPLES = {"rpi1": 7, "rpi2": 30}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFederation]:
    """Four of seven tensors are frozen. Wishes are gathered until both devices have asked."""
    model = {"frozen_tensors": 4, "sleep_s": 0.5}
    with LiveFederation(tmp_path_factory.mktemp("cli"), EXAMPLES) as federation:
        yield federation.begin("embedded", model, transfer={"merge_s": 10})


@contextmanager
def held_open(live: LiveFederation, number: int) -> Iterator[None]:
    """Keep a round from its end while inside: one device trains for as long."""
    live.until(lambda: live.trainings("rpi1", number), "the round did not begin")
    live.processes["rpi1"].send(signal.SIGSTOP)
    yield
    live.processes["rpi1"].send(signal.SIGCONT)


def test_start_runs_the_rounds_and_prints_them(live: LiveFederation) -> None:
    first = live.store.last_round() + 1
    done = live.command("start", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    for number in (first, first + 1):
        assert f"Round {number} is committed: 2 of 2 devices reported in " in done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows[1:]] == [[str(first), "committed"], [str(first + 1), "committed"]]


def test_programs_read_where_the_federation_stands(live: LiveFederation) -> None:
    live.run(2)
    status, devices, rounds = (
        json.loads(live.command(name, "--json").stdout) for name in ("status", "devices", "rounds")
    )
    last = live.store.last_round()
    model = live.store.global_model()
    assert model is not None
    assert (status["federation"], status["is_served"], status["run"]) == (FEDERATION, True, None)
    assert (status["last_round"]["round"], status["open_round"]) == (last, None)
    assert status["model"]["id"] == status["last_round"]["model"] == model.id
    for listed in (devices, status["devices"]):
        assert [(row["device"], row["state"], row["reported"]) for row in listed] == [
            ("rpi1", "online", last),
            ("rpi2", "online", last),
        ]
    assert [(row["round"], row["phase"], row["reported"]) for row in rounds] == [
        (number, "committed", ["rpi1", "rpi2"]) for number in range(1, last + 1)
    ]
    # Frozen tensors travel once: neither the models after the first hold them, nor any update.
    size = len(initial_model())
    assert size * 3 / 7 < rounds[-1]["bytes_down"] < size * 0.5
    assert size * 3 / 7 < rounds[-1]["bytes_up"] / len(EXAMPLES) < size * 0.5
    ledger = json.loads(live.command("rounds", "--round", str(last), "--json").stdout)["ledger"]
    assert {row["device"]: row["num_examples"] for row in ledger} == EXAMPLES


def test_stop_ends_a_run_after_its_open_round(live: LiveFederation) -> None:
    first = live.store.last_round() + 1
    with live.cli("start", "--rounds", "100") as start:
        with held_open(live, first):
            said = live.command("stop").stdout
        _, told = start.communicate(timeout=WAIT_S)
    assert said == f"Stopping 1 run. Round {first} is finished first.\n"
    assert start.returncode == 70
    assert "was stopped after 1 of 100 rounds" in told
    assert [row.phase for row in live.store.rounds(first - 1)] == ["committed"]


def test_stop_now_abandons_the_open_round(live: LiveFederation) -> None:
    number, base = live.ask(), live.model()
    with held_open(live, number):
        assert live.command("stop", "--now").returncode == 0
        (row,) = live.finish(number)
    assert (row.phase, row.reason) == ("abandoned", "the operator stopped it")
    assert live.model() == base


def test_watch_streams_messages_as_lines_of_json(live: LiveFederation) -> None:
    with live.cli("watch", "--json", "--seconds", "3") as watch:
        assert watch.stdout is not None
        first = watch.stdout.readline()
        assert watch.poll() is None, "it told nothing before its end"
        (row,) = live.run()
        out, _ = watch.communicate(timeout=WAIT_S)
    assert watch.returncode == 0
    messages = [json.loads(line) for line in (first + out).splitlines()]
    topics = {message["topic"].removeprefix(f"fedpi/2/{FEDERATION}/") for message in messages}
    assert {"coord/status", "coord/round", "coord/event", "dev/rpi1/status", "dev/rpi1/event"} <= topics
    phases = [
        m["document"]["phase"] for m in messages if m["document"].get("round") == row.round and "phase" in m["document"]
    ]
    # On a busy machine the seconds may be over before the round is.
    told = list(dict.fromkeys(phases))
    assert told
    assert told == ["selecting", "reporting", "aggregating", "committed"][: len(told)]
