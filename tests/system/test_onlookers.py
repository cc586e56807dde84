"""Whoever looks on: `watch`, Prometheus and Home Assistant, beside a device that sits out and one that does not."""

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from common.chronicle import PastRounds, RoundMembers
from common.topics import Kind, topic
from tests.conftest import find_ports
from tests.system.conftest import LiveFederation

pytestmark = pytest.mark.system
FULL_DISK = {"health": {"min_disk_mb": 1_000_000_000}}


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return find_ports(1)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, metrics_port: int) -> Iterator[LiveFederation]:
    with LiveFederation(tmp_path_factory.mktemp("onlookers"), {"rpi1": 7, "rpi2": 9}) as live:
        live.begin(
            "mosquitto",
            devices={"rpi2": FULL_DISK},
            round={"goal": 2, "minimum": 1, "selection_s": 2.0},
            metrics={"port": metrics_port},
            home_assistant={"discovery": True},
        )
        live.until(lambda: "sitting rounds out" in live.store.devices()[1].doing, "rpi2 did not tell that it sits out")
        live.run()
        yield live


def retained(live: LiveFederation, prefix: str, count: int = 3) -> dict[str, bytes]:
    """What a newcomer hears at once on `count` topics that begin so."""
    with live.onlooker(f"{prefix}/#") as onlooker:
        live.until(lambda: len({heard.topic for heard in onlooker.below(prefix)}) >= count, f"few are below {prefix}")
        return {heard.topic: heard.payload for heard in onlooker.below(prefix)}


def test_a_device_without_disk_sits_out_and_the_cohort_does_without_it(live: LiveFederation) -> None:
    (row,) = live.store.rounds()
    assert (row.phase, row.invited, row.reported) == ("committed", ("rpi1",), ("rpi1",))
    health = live.store.devices()[1].health
    assert health is not None
    assert health.unfit == "less than 1000000000 MB of disk are free"
    assert health.memory_free_bytes


def test_a_newcomer_is_told_how_the_round_went(live: LiveFederation) -> None:
    federation = topic(Kind.COORD_ROUND, "rehearsal").split("/")[2]
    told = retained(live, f"fedpi/2/{federation}/coord", 4)  # status, round, members, rounds
    members = msgspec.json.decode(told[topic(Kind.COORD_MEMBERS, federation)], type=RoundMembers)
    (member,) = members.members
    assert (members.round, member.device, member.standing, member.examples) == (1, "rpi1", "reported", 7)
    assert member.update_bytes == member.received_bytes == 2_000_000
    (past,) = msgspec.json.decode(told[topic(Kind.COORD_ROUNDS, federation)], type=PastRounds).rounds
    assert (past.round, past.phase, past.reported) == (1, "committed", 1)


def test_watch_streams_it_as_json(live: LiveFederation) -> None:
    done = live.command("watch", "--json", "--seconds", "1.5")
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = {line["topic"]: line["document"] for line in map(json.loads, done.stdout.splitlines())}
    (members,) = [document for name, document in seen.items() if name.endswith("coord/members")]
    assert members["members"][0]["device"] == "rpi1"
    (status,) = [document for name, document in seen.items() if name.endswith("rpi2/status")]
    assert status["health"]["unfit"]


@pytest.mark.usefixtures("live")
def test_prometheus_finds_the_round_and_the_devices(metrics_port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}
    names = {name.partition("{")[0]: value for name, value in found.items()}
    assert names["fedpi_round_number"] == 1
    assert 'device="rpi2"' in next(k for k, v in found.items() if k.startswith("fedpi_device_sitting_out") and v)
    assert names["process_resident_memory_bytes"] > 1e7


def test_home_assistant_is_told_of_the_federation_and_each_device(live: LiveFederation) -> None:
    told = {name: json.loads(payload) for name, payload in retained(live, "homeassistant").items()}
    assert len(told) == 3
    (device,) = [document for name, document in told.items() if name.endswith("-dev-rpi1/config")]
    assert device["state_topic"].endswith("/dev/rpi1/status")


def test_a_device_that_is_gone_for_good_is_forgotten_everywhere(live: LiveFederation, metrics_port: int) -> None:
    live.processes["rpi2"].send(signal.SIGTERM)
    live.until(lambda: live.store.devices()[1].state == "offline", "rpi2 did not go")
    done = live.command("forget", "rpi2")
    assert (done.returncode, done.stdout) == (0, "rpi2 is forgotten.\n")
    live.until(lambda: not live.store.to_forget(), "the coordinator did not take rpi2 out of the broker")
    assert [row.device for row in live.store.devices()] == ["rpi1"]
    with live.onlooker("#") as onlooker:
        live.until(lambda: len(onlooker.below("homeassistant")) >= 2, "Home Assistant is told nothing")
        time.sleep(0.3)  # whatever else is retained
        told = [heard.topic for heard in (*onlooker.below("homeassistant"), *onlooker.below("fedpi/"))]
    assert [name for name in told if "rpi1" in name]
    assert not [name for name in told if "rpi2" in name]
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as answer:
        assert b"rpi2" not in answer.read()
    status = json.loads(live.command("status", "--json").stdout)
    assert [row["device"] for row in status["devices"]] == ["rpi1"]
