"""What the encodings leave open, and the protocol does not: bytes and text, keys that stand twice, whole numbers."""

from typing import Any

import msgpack
import pytest

from common.errors import PeerError
from common.messages import Bye, Chunk, Command, CoordinatorStatus, Say, Signed, decode, decode_story


@pytest.mark.parametrize(
    "message",
    [
        {"type": "Want", "device": "pi", "blob": "0" * 64, "chunks": "AAAA"},
        {"type": "Invite", "device": "pi", "round": 1, "generation": "aa", "plan": "AAAA"},
        {"type": "Chunk", "blob": "0" * 64, "index": 0, "data": "AAAA"},
        {"type": "Signed", "body": "AAAA", "signature": ""},
    ],
    ids=lambda message: message["type"],
)
def test_text_in_the_place_of_bytes_is_refused(message: dict[str, Any]) -> None:
    expected: Any = {"Want": Say, "Invite": Command, "Chunk": Chunk, "Signed": Signed}[message["type"]]
    with pytest.raises(PeerError, match="Expected `bytes`"):
        decode(msgpack.packb(message), expected)
    decode(msgpack.packb({key: b"AAAA" if value == "AAAA" else value for key, value in message.items()}), expected)


def test_of_a_key_that_stands_twice_the_last_one_counts() -> None:
    twice = [("type", "Hello"), ("type", "Bye"), ("device", "pi"), ("nonce", "1"), ("nonce", "2")]
    packed = bytes([0x80 | len(twice)]) + b"".join(msgpack.packb(key) + msgpack.packb(value) for key, value in twice)
    assert decode(packed, Say) == Bye(device="pi", nonce="2")
    document = b'{"federation":"a","federation":"lab","epoch":"1","state":"online"}'
    assert decode_story(document, CoordinatorStatus).federation == "lab"


def test_a_whole_number_with_a_point_and_what_follows_the_map_are_refused() -> None:
    check_in = {"type": "CheckIn", "device": "pi", "round": 1, "generation": "aa"}
    decode(msgpack.packb(check_in), Say)
    for payload in (msgpack.packb({**check_in, "round": 1.0}), msgpack.packb(check_in) + b"\x00"):
        with pytest.raises(PeerError):
            decode(payload, Say)
