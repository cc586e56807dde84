"""Topics: built and parsed in one place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PeerError
from common.topics import TABLE, Address, Kind, parse, topic

names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
blobs = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)


@given(kind=st.sampled_from(Kind), federation=names, device=names, blob=blobs)
def test_what_is_built_is_parsed_back(kind: Kind, federation: str, device: str, blob: str) -> None:
    name = topic(kind, federation, device=device, blob=blob)
    pattern = next(row.pattern for row in TABLE if row.kind is kind)
    expected = Address(
        kind,
        federation,
        device if "{device}" in pattern else "",
        blob[:16] if "{blob}" in pattern else "",
    )
    assert parse(name) == expected


@given(kind=st.sampled_from(Kind))
def test_the_longest_names_stay_within_what_every_broker_routes(kind: Kind) -> None:
    name = topic(kind, "f" * 32, device="d" * 32, blob="0" * 64)
    assert len(name.split("/")) <= 7
    assert len(name.encode()) < 200


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_refused(name: str) -> None:
    try:
        address = parse(name)
    except PeerError:
        return
    assert topic(address.kind, address.federation, device=address.device, blob=address.blob) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "fedpi/2/demo/coord/status/more",
        "fedpi/2/demo/coord/status\n",
        "fedpi/1/demo/coord/status",
        "fedpi/2/Demo/coord/status",
        "fedpi/2/demo/dev/+/status",
        "fedpi/2//coord/status",
        "fedpi/2/demo/dev/" + "d" * 65 + "/status",
        "$SYS/broker/uptime",
        "fedpi-wire/2/demo/dev/pi/status",
    ],
)
def test_a_foreign_topic_is_refused(name: str) -> None:
    with pytest.raises(PeerError):
        parse(name)


def test_every_kind_has_one_row_and_no_two_rows_share_a_topic() -> None:
    assert [row.kind for row in TABLE] == list(Kind)
    assert len({topic(kind, "f", device="d", blob="0" * 64) for kind in Kind}) == len(Kind)


def test_a_filter_for_all_devices() -> None:
    assert topic(Kind.DEV_UP, "demo", device="+") == "fedpi-wire/2/demo/dev/+/up"
