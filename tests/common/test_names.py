"""What is wrong with a name or an address, in words that say what to write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.names import address, bare_host, host_fault, name_fault


@pytest.mark.parametrize("name", ["rpi1", "a", "7", "ward-3", "x" * 32])
def test_a_valid_name_has_no_fault(name: str) -> None:
    assert name_fault(name) == ""


@pytest.mark.parametrize(
    ("name", "near"),
    [("RPi_1", "rpi-1"), ("rpi 1", "rpi-1"), ("../../evil", "evil"), ("-a-", "a"), ("", "rpi1"), ("rpi1\n", "rpi1")],
)
def test_a_name_that_is_not_valid_is_answered_with_one_that_is(name: str, near: str) -> None:
    fault = name_fault(name)
    assert "a-z, 0-9" in fault
    assert f"such as {near!r}" in fault
    assert "\n" not in fault


@given(st.text(max_size=60))
def test_the_name_that_is_proposed_is_always_valid(name: str) -> None:
    if fault := name_fault(name):
        assert name_fault(fault.rpartition("such as ")[2].strip("'")) == ""


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "broker.lan", "broker.lan.", "pi_1.local", "::1", "[::1]", "fe80::1%eth0", "bröker.lan"]
)
def test_names_and_addresses_have_no_fault(host: str) -> None:
    assert host_fault(host) == ""


@pytest.mark.parametrize(
    ("host", "parts"),
    [
        ("mqtt://10.0.0.2", ("write 10.0.0.2 here", "the port at 'port'")),
        ("mqtts://me:secret@broker.lan:8883/x", ("write broker.lan here", "the port 8883 at 'port'")),
        ("127.0.0.1:1883", ("write 127.0.0.1 here", "the port 1883 at 'port'")),
        ("[::1]:1883", ("write ::1 here", "the port 1883 at 'port'")),
        ("broker.lan/", ("write broker.lan here",)),
        ("", ("write one such as",)),
        ("10.0.0.2 ", ("write one such as",)),
        ("two words", ("write one such as",)),
        ("a..b", ("write one such as",)),
        ("x" * 70, ("write one such as",)),
        ("::1:x", ("write one such as",)),
        ("a\x00\n", ("write one such as",)),
    ],
)
def test_an_address_that_nobody_can_dial_is_answered_with_what_to_write(host: str, parts: tuple[str, ...]) -> None:
    fault = host_fault(host)
    assert "secret" not in fault
    assert "\n" not in fault
    for part in parts:
        assert part in fault


def test_brackets_stand_around_an_ipv6_address_only_before_a_port() -> None:
    assert bare_host("[::1]") == "::1"
    assert bare_host("broker.lan") == "broker.lan"
    assert address("::1", 1883) == "[::1]:1883"
    assert address("127.0.0.1", 1883) == "127.0.0.1:1883"
