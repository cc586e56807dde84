"""What is rendered, read back: as Mosquitto reads an ACL (mosquitto.conf(5)) and as rumqttd reads TOML."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from broker import embedded
from broker.mosquitto import render_acl, render_conf
from broker.settings import ServeConfig
from common.config import load
from common.errors import ConfigError
from common.limits import PACKET_MOST, PACKET_OVERHEAD
from common.topics import TABLE, VERSION, Party, Topic, of_version

BLOB = "0123456789abcdef"


@dataclass(frozen=True)
class Rule:
    user: str | None
    access: str
    topic: str


def parse_acl(text: str) -> list[Rule]:
    rules, user = [], ""
    for line in text.splitlines():
        match line.split():
            case ["user", name]:
                user = name
            case ["topic", access, topic]:
                rules.append(Rule(user, access, topic))
            case ["pattern", access, topic]:
                rules.append(Rule(None, access, topic))
            case [word, *_] if not word.startswith("#"):
                raise AssertionError(f"Mosquitto does not know the line {line!r}")
    return rules


def matches(rule: str, topic: str) -> bool:
    parts, levels = rule.split("/"), topic.split("/")
    if parts[-1] == "#":
        parts, levels = parts[:-1], levels[: len(parts) - 1]
    return len(parts) == len(levels) and all(p in {"+", v} for p, v in zip(parts, levels, strict=True))


def allows(rules: list[Rule], user: str, access: str, topic: str) -> bool:
    """Decide as Mosquitto does: a user's denials, the user's rules, then the patterns, which skip anonymous ones."""
    own = [rule for rule in rules if rule.user == user and matches(rule.topic, topic)]
    shared = [rule for rule in rules if user and rule.user is None]
    if any(rule.access == "deny" for rule in own):
        return False
    granting = own + [rule for rule in shared if matches(rule.topic.replace("%u", user), topic)]
    return any(rule.access in {access, "readwrite"} for rule in granting)


EVERY = [(row, version) for row in TABLE for version in row.versions]
"""Rows, by each version of the protocol that has them."""


def name(row: Topic, device: str, federation: str = "lab", version: str = VERSION) -> str:
    return of_version(version, row.pattern.format(federation=federation, device=device, blob=BLOB))


@pytest.fixture(scope="module")
def acl() -> list[Rule]:
    return parse_acl(render_acl(ServeConfig()))


@pytest.mark.parametrize(("row", "version"), EVERY)
def test_device_holds_its_own_branch_as_the_table_says(acl: list[Rule], row: Topic, version: str) -> None:
    own = name(row, "rpi1", version=version)
    assert allows(acl, "rpi1", "write", own) == (row.publisher is Party.DEVICE)
    assert allows(acl, "rpi1", "read", own) == (Party.DEVICE in row.readers)


@pytest.mark.parametrize("row", [row for row in TABLE if "{device}" in row.pattern], ids=lambda row: row.kind)
@pytest.mark.parametrize("access", ["read", "write"])
def test_device_holds_nothing_of_another_branch(acl: list[Rule], row: Topic, access: str) -> None:
    assert not allows(acl, "rpi1", access, name(row, "rpi2"))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.kind)
def test_coordinator_holds_everything_and_monitor_reads_the_story(acl: list[Rule], row: Topic) -> None:
    topic = name(row, "rpi1")
    assert allows(acl, "coordinator", "read", topic)
    assert allows(acl, "coordinator", "write", topic)
    assert allows(acl, "monitor", "read", topic) == topic.startswith("fedpi/")
    assert not allows(acl, "monitor", "write", topic)


@pytest.mark.parametrize(("row", "version"), [each for each in EVERY if "{device}" in each[0].pattern])
def test_monitor_cannot_pass_for_a_device_of_its_own_name(acl: list[Rule], row: Topic, version: str) -> None:
    assert not allows(acl, "monitor", "write", name(row, "monitor", version=version))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.kind)
def test_stranger_without_a_name_holds_nothing_unless_anonymous_is_asked_for(acl: list[Rule], row: Topic) -> None:
    opened = parse_acl(render_acl(ServeConfig(anonymous=True)))
    for access in ("read", "write"):
        assert not allows(acl, "", access, name(row, "rpi1"))
        assert allows(opened, "", access, name(row, "rpi1"))


@pytest.mark.parametrize("row", [row for row in TABLE if row.publisher is Party.DEVICE], ids=lambda row: row.kind)
def test_named_federation_keeps_devices_out_of_others(row: Topic) -> None:
    rules = parse_acl(render_acl(ServeConfig(federation="lab")))
    assert allows(rules, "rpi1", "write", name(row, "rpi1", "lab"))
    assert not allows(rules, "rpi1", "write", name(row, "rpi1", "clinic"))


def test_example_configuration_shows_every_key_with_its_default() -> None:
    path = Path(__file__).parents[2] / "config" / "broker.yaml"
    config = load(path, ServeConfig)
    assert config == ServeConfig(devices=config.devices)
    assert set(yaml.safe_load(path.read_text())) == set(ServeConfig.__struct_fields__)


def test_mosquitto_has_room_for_the_largest_chunk_and_asks_for_passwords() -> None:
    lines = [line for line in render_conf(ServeConfig(), "pi").splitlines() if line and not line.startswith("#")]
    pairs = [line.split(maxsplit=1) for line in lines]
    settings = dict(pairs)
    assert [key for key, _ in pairs if key != "log_type"] == [key for key in settings if key != "log_type"]
    assert settings["allow_anonymous"] == "false"
    assert settings["listener"] == "1883 127.0.0.1"
    assert 2**18 + PACKET_OVERHEAD <= int(settings["max_packet_size"]) <= PACKET_MOST
    assert int(settings["max_queued_messages"]) >= 1000


def test_anonymous_mosquitto_refuses_to_leave_this_machine() -> None:
    with pytest.raises(ConfigError, match=r"192\.168\.1\.5"):
        render_conf(ServeConfig(anonymous=True, host="192.168.1.5"), "pi")


def test_embedded_broker_serves_both_protocols_in_bounded_memory() -> None:
    toml = tomllib.loads(embedded.render(ServeConfig(port=2000)))
    assert (toml["v5"]["1"]["listen"], toml["v4"]["1"]["listen"]) == ("127.0.0.1:2000", "127.0.0.1:2001")
    assert toml["router"]["max_segment_size"] * toml["router"]["max_segment_count"] <= 32 * 2**20
    for version in ("v4", "v5"):
        connections = toml[version]["1"]["connections"]
        assert connections["max_payload_size"] == 2**20
        assert connections["max_inflight_count"] == 100


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::1", "[::1]", "127.example.com"])  # noqa: S104 - refused
def test_embedded_broker_refuses_to_leave_this_machine(host: str) -> None:
    with pytest.raises(ConfigError, match="no access control"):
        embedded.render(ServeConfig(host=host))


@pytest.mark.parametrize(("port", "second"), [(65_535, None), (2000, 2000)])
def test_embedded_broker_needs_two_ports(port: int, second: int | None) -> None:
    with pytest.raises(ConfigError, match="port_311"):
        embedded.render(ServeConfig(port=port, port_311=second))
