"""Any process is killed (SIGKILL) in the middle of a round and started again: the round ends as if nothing had been."""

import os
import signal
from collections import Counter
from collections.abc import Iterator

import msgpack
import pytest

from tests.system.conftest import LiveFederation

pytestmark = pytest.mark.system

EXAMPLES = {"rpi1": 7, "rpi2": 30}
BROKER = "mosquitto"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFederation]:
    """Updates crawl: every chunk is small, and waits until the one before it has arrived."""
    transfer = {"chunk_bytes": 4096, "credit_chunks": 2, "repair_s": 0.5}
    with LiveFederation(tmp_path_factory.mktemp("crashes"), EXAMPLES) as federation:
        yield federation.begin(BROKER, {"parameters": 800_000, "sleep_s": 0.7}, transfer=transfer)


@pytest.mark.parametrize("victim", ["coordinator", "broker"])
def test_crash_while_devices_are_selected(live: LiveFederation, victim: str) -> None:
    base = live.model()
    live.processes["rpi2"].send(signal.SIGSTOP)  # so that the round waits for it
    number = live.ask()
    live.until_logged("rpi1", f"now checking in, round {number}\n")
    assert live.phase(number) == "selecting"
    crash(live, victim)
    live.processes["rpi2"].send(signal.SIGCONT)
    ends_as_undisturbed(live, number, base)


@pytest.mark.parametrize("victim", ["rpi1", "coordinator", "broker"])
def test_crash_while_devices_train(live: LiveFederation, victim: str) -> None:
    base = live.model()
    number = live.ask()
    live.until(lambda: all(live.trainings(device, number) for device in EXAMPLES), "the devices did not begin to train")
    crash(live, victim)
    ends_as_undisturbed(live, number, base)
    # Nobody else's training is lost.
    assert {device: live.trainings(device, number) for device in EXAMPLES} == {
        device: 2 if device == victim else 1 for device in EXAMPLES
    }


def test_cohort_outlives_the_coordinator(live: LiveFederation) -> None:
    base = live.model()
    number = live.ask()
    live.until(lambda: all(live.trainings(device, number) for device in EXAMPLES), "the devices did not begin to train")
    live.processes["rpi2"].send(signal.SIGSTOP)
    crash(live, "coordinator")
    live.examples["stranger"] = 11
    live.add("stranger")  # it would take the place of the device that is silent
    live.until(lambda: live.states().get("stranger") == "online", "the stranger did not come online")
    live.processes["rpi2"].send(signal.SIGCONT)
    ends_as_undisturbed(live, number, base)
    live.leave("stranger")


@pytest.mark.parametrize("victim", ["rpi1", "coordinator", "broker"])
def test_crash_in_the_middle_of_an_upload(live: LiveFederation, victim: str) -> None:
    base = live.model()
    with live.onlooker("fedpi-wire/2/rehearsal/dev/rpi1/up") as onlooker:
        number = live.ask()
        live.until_partly_here("rpi1", len(base) // 4)
        crash(live, victim)
        assert live.phase(number) == "reporting"
        ends_as_undisturbed(live, number, base)
    # The update outlives its device, and what of it had arrived outlives the coordinator.
    assert {device: live.trainings(device, number) for device in EXAMPLES} == dict.fromkeys(EXAMPLES, 1)
    sent = Counter(msgpack.unpackb(heard.payload)["index"] for heard in onlooker.heard)
    assert sent.total() < 1.1 * len(sent)


def test_coordinator_crashes_while_it_averages(live: LiveFederation) -> None:
    base = live.model()
    number = live.ask()
    live.until(lambda: live.trainings("rpi1", number), "rpi1 did not begin to train")
    draft = live.folder / "coordinator" / "models" / "draft.tmp"
    os.mkfifo(draft)  # it holds 64 KiB: whoever writes more waits
    with os.fdopen(os.open(draft, os.O_RDONLY | os.O_NONBLOCK), "rb") as torn:
        live.until(lambda: torn.read(1), "the coordinator did not begin to average")
        live.processes["coordinator"].kill()
    draft.unlink()
    draft.write_bytes(b"torn")
    assert live.phase(number) == "aggregating"
    live.start_coordinator()
    ends_as_undisturbed(live, number, base)


def crash(live: LiveFederation, victim: str) -> None:
    live.processes[victim].kill()
    if victim == "broker":
        assert not (live.folder / "broker" / "data" / "mosquitto.db").exists(), "it would not return empty"
        live.start_broker(BROKER)
    elif victim == "coordinator":
        live.start_coordinator()
    else:
        live.start_device(victim)


def ends_as_undisturbed(live: LiveFederation, number: int, base: bytes) -> None:
    (row,) = live.finish(number)
    assert (row.phase, row.reported) == ("committed", tuple(sorted(EXAMPLES)))
    assert {device: entry.num_examples for device, entry in live.ledger(number).items()} == EXAMPLES
    assert live.model() == live.expect(base, number, *EXAMPLES)
