"""Home Assistant's discovery: what it must hold, and that its templates find what fedpi really publishes."""

import json
import re
from typing import Any

import msgspec
import pytest

from common.chronicle import PastRound, PastRounds
from common.health import Health
from common.messages import CoordinatorStatus, DeviceStatus, RoundStatus
from common.topics import Kind, topic
from coordinator.home_assistant import discovery

TOLD = {name: json.loads(payload) for name, payload in discovery("brain", ["rpi1", "rpi-2"])}
DEVICE = "homeassistant/device/fedpi-brain-dev-rpi1/config"
PATH = re.compile(r"value_json((?:\.\w+|\[-?\d+\])+)")
HEALTH = Health(
    temperature_c=50.0, flags=("throttled",), memory_free_bytes=1, disk_free_bytes=2, load=0.5, unfit="too hot"
)
STATUS = DeviceStatus(
    device="rpi1", nonce="aa", state="online", doing="training, round 1", release="r1", text="x", health=HEALTH
)
PAST = PastRounds(
    rounds=(PastRound(round=1, phase="committed", invited=2, reported=2, closed=1.0, seconds=8.0),),
)
PUBLISHED: dict[str, msgspec.Struct] = {
    topic(Kind.COORD_STATUS, "brain"): CoordinatorStatus(federation="brain", epoch="ab", state="online"),
    topic(Kind.COORD_ROUND, "brain"): RoundStatus(
        epoch="ab", round=1, phase="committed", invited=2, reported=1, text="x"
    ),
    topic(Kind.COORD_ROUNDS, "brain"): PAST,
    topic(Kind.DEV_STATUS, "brain", device="rpi1"): STATUS,
    topic(Kind.DEV_STATUS, "brain", device="rpi-2"): STATUS,
}


def test_there_is_one_document_for_the_federation_and_one_for_each_device() -> None:
    names = ("fedpi-brain", "fedpi-brain-dev-rpi1", "fedpi-brain-dev-rpi-2")
    assert list(TOLD) == [f"homeassistant/device/{name}/config" for name in names]
    assert all(re.fullmatch(r"homeassistant/device/[A-Za-z0-9_-]+/config", name) for name in TOLD)


@pytest.mark.parametrize("document", TOLD.values(), ids=list(TOLD))
def test_a_document_holds_what_device_discovery_requires(document: dict[str, Any]) -> None:
    assert {"device", "origin", "components"} <= set(document)
    assert document["device"]["identifiers"]
    assert document["origin"]["name"] == "fedpi"
    for component in document["components"].values():
        assert component["platform"] in {"sensor", "binary_sensor"}
        assert {"unique_id", "name", "value_template"} <= set(component)


def test_every_unique_id_is_unique() -> None:
    ids = [component["unique_id"] for document in TOLD.values() for component in document["components"].values()]
    assert len(ids) == len(set(ids))


def test_devices_hang_below_their_federation() -> None:
    federation = TOLD["homeassistant/device/fedpi-brain/config"]
    assert TOLD[DEVICE]["device"]["via_device"] in federation["device"]["identifiers"]


def lookups(document: dict[str, Any]) -> list[tuple[str, str]]:
    """Every topic that is read, with the path that a template takes into its document."""
    found = [(part["topic"], part["value_template"]) for part in document["availability"]]
    for part in document["components"].values():
        found += [(part.get("state_topic", document["state_topic"]), part["value_template"])]
    return [(name, path) for name, template in found for path in PATH.findall(template)]


@pytest.mark.parametrize(("name", "path"), [found for document in TOLD.values() for found in lookups(document)])
def test_a_template_finds_what_it_looks_for(name: str, path: str) -> None:
    value = json.loads(msgspec.json.encode(PUBLISHED[name]))
    for step in re.findall(r"\w+|\[-?\d+\]", path.replace("[", ".[")):
        value = value[int(step[1:-1])] if step.startswith("[") else value[step]


ALWAYS = {".state", ".phase", ".round", ".text", ".rounds[-1].seconds"}
"""What is in every document: these fields have no default, or fedpi always gives them a value."""


@pytest.mark.parametrize("document", TOLD.values(), ids=list(TOLD))
def test_a_template_says_what_holds_for_a_field_that_is_not_sent_since_it_has_its_default(
    document: dict[str, Any],
) -> None:
    for part in document["components"].values():
        template = part["value_template"]
        for path in set(PATH.findall(template)) - ALWAYS - {".health", ".rounds"}:  # these are asked for with `if`
            assert re.search(re.escape(f"value_json{path}") + r" \| default\(", template), template
