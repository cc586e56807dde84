"""The vocabulary: any bytes give a message or PeerError, never another exception."""

import contextlib
from typing import Any, get_args

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PeerError
from common.messages import (
    FIGURE_MAX,
    Accept,
    Bye,
    CheckIn,
    Chunk,
    Command,
    CoordinatorStatus,
    Decline,
    DeviceStatus,
    Failed,
    Hello,
    Invite,
    Offer,
    Prediction,
    Receipt,
    Ref,
    Refusal,
    ReleaseStatus,
    Result,
    RoundStatus,
    Say,
    Story,
    StoryEvent,
    Want,
    clip,
    decode,
    decode_story,
    encode,
    encode_story,
)
from common.plan import ModelChoice, RoundPlan, Training, write

devices = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
blobs = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
tokens = st.from_regex(r"[0-9a-f]{1,32}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8"), max_size=500)
labels = st.text(st.characters(codec="utf-8"), min_size=1, max_size=100)
numbers = st.integers(0, 2**53 - 1)
positives = st.integers(1, 2**53 - 1)
figures = st.floats(-FIGURE_MAX, FIGURE_MAX)
metrics = st.dictionaries(labels, figures, max_size=5)
refs = st.builds(
    Ref,
    id=blobs,
    head_bytes=st.integers(1, 2**23),
    size=st.integers(0, 2**34),
    chunk_bytes=st.integers(2**12, 2**18),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | figures | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(labels, inner, max_size=3),
    max_leaves=8,
)
plans = st.builds(
    RoundPlan,
    round=positives,
    generation=tokens,
    base=refs,
    model=st.builds(ModelChoice, name=labels, options=st.dictionaries(labels, json_values, max_size=3)),
    labels=st.lists(labels, min_size=2, max_size=4).map(tuple),
    training=st.builds(
        Training,
        epochs=st.integers(0, 10_000),
        batch_size=st.integers(1, 65_536),
        learning_rate=st.floats(0, 100, exclude_min=True),
        seed=st.integers(0, 2**32),
        evaluate=st.booleans(),
    ),
    deadline_s=st.floats(0, 1e7, exclude_min=True),
)
wire_messages: st.SearchStrategy[Any] = st.one_of(
    st.builds(Chunk, blob=blobs, index=st.integers(0, 2**17), data=st.binary(max_size=300)),
    st.builds(Want, device=devices, blob=blobs, chunks=st.binary(max_size=300)),
    st.builds(
        Hello,
        device=devices,
        nonce=tokens,
        epoch=tokens,
        abilities=st.lists(labels, max_size=3).map(tuple),
    ),
    st.builds(Bye, device=devices, nonce=tokens),
    st.builds(CheckIn, device=devices, round=positives, generation=tokens),
    st.builds(Accept, device=devices, round=positives, generation=tokens),
    st.builds(Decline, device=devices, round=positives, generation=tokens, reason=texts),
    st.builds(Failed, device=devices, round=positives, generation=tokens, reason=texts),
    st.builds(
        Offer,
        device=devices,
        round=positives,
        generation=tokens,
        plan=blobs,
        update=refs,
        num_examples=positives,
        metrics=metrics,
    ),
    st.builds(Invite, device=devices, round=positives, generation=tokens, plan=plans.map(write)),
    st.builds(Result, device=devices, round=positives, generation=tokens, counted=st.booleans(), reason=texts),
    st.builds(Receipt, device=devices, round=positives, generation=tokens, update=blobs),
    st.builds(Refusal, device=devices, round=positives, generation=tokens, reason=texts),
)
phases = st.sampled_from(["idle", "selecting", "reporting", "aggregating", "committed", "abandoned"])
states = st.sampled_from(["online", "offline"])
shorts = st.text(st.characters(codec="utf-8"), max_size=100)
documents: st.SearchStrategy[Any] = st.one_of(
    st.builds(CoordinatorStatus, federation=devices, epoch=tokens, state=states, refused=numbers, text=texts),
    st.builds(
        RoundStatus,
        epoch=tokens,
        round=numbers,
        phase=phases,
        model=st.none() | refs,
        generation=tokens,
        invited=numbers,
        reported=numbers,
        goal=numbers,
        minimum=numbers,
        text=texts,
    ),
    st.builds(
        ReleaseStatus,
        release=labels,
        model=refs,
        labels=st.lists(labels, max_size=3).map(tuple),
        round=numbers,
        text=texts,
    ),
    st.builds(
        DeviceStatus,
        device=devices,
        nonce=tokens,
        state=states,
        doing=texts,
        release=shorts,
        refused=numbers,
        text=texts,
    ),
    st.builds(
        StoryEvent,
        event=labels,
        text=texts,
        round=numbers,
        device=st.just("") | devices,
        fraction=st.none() | st.floats(0, 1),
        metrics=metrics,
    ),
    st.builds(
        Prediction,
        device=devices,
        request=tokens,
        ok=st.booleans(),
        label=shorts,
        probability=figures,
        release=shorts,
        milliseconds=figures,
        text=texts,
    ),
)
EXPECTED: tuple[Any, ...] = (Say, Command, Chunk)
DOCUMENTS: tuple[Any, ...] = get_args(Story)
OFFER = {
    "type": "Offer",
    "device": "pi",
    "round": 1,
    "generation": "aa",
    "plan": "0" * 64,
    "update": {"id": "1" * 64, "head_bytes": 100, "size": 8, "chunk_bytes": 65_536},
    "num_examples": 3,
    "metrics": {"loss": 0.5},
}
INVITE = {
    "type": "Invite",
    "device": "pi",
    "round": 1,
    "generation": "aa",
    "plan": b"",
}


def try_all(payload: bytes) -> None:
    """Decode as everything that a process expects anywhere; any exception but PeerError fails the test."""
    for expected in EXPECTED:
        with contextlib.suppress(PeerError):
            decode(payload, expected)
    for expected in DOCUMENTS:
        with contextlib.suppress(PeerError):
            decode_story(payload, expected)


@given(wire_messages)
def test_every_message_comes_back_as_it_was_sent(message: Any) -> None:
    union = Chunk if isinstance(message, Chunk) else Command if isinstance(message, get_args(Command)) else Say
    assert decode(encode(message), union) == message


@given(documents)
def test_every_document_comes_back_as_it_was_sent(document: Any) -> None:
    assert decode_story(encode_story(document), type(document)) == document


@given(wire_messages)
def test_the_wire_is_plain_msgpack_that_names_its_type(message: Any) -> None:
    plain = msgpack.unpackb(encode(message))
    assert plain["type"] == type(message).__name__


@given(st.binary(max_size=300))
def test_random_bytes_are_refused_and_nothing_else(payload: bytes) -> None:
    try_all(payload)


@given(
    wire_messages | documents, st.lists(st.tuples(st.integers(0, 500), st.binary(max_size=4)), max_size=4), st.data()
)
def test_a_damaged_message_is_a_message_or_refused(
    message: Any, damages: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    payload = encode_story(message) if isinstance(message, DOCUMENTS) else encode(message)
    for place, other in damages:
        payload = payload[:place] + other + payload[place + data.draw(st.integers(0, 4)) :]
    try_all(payload)
    try_all(payload[: data.draw(st.integers(0, len(payload)))])


msgpack_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.binary(max_size=20)
    | st.builds(msgpack.Timestamp, st.integers(0, 2**40), st.integers(0, 10**9 - 1))
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@given(st.sampled_from([OFFER, INVITE]), st.data())
def test_a_field_of_any_type_and_value_is_taken_or_refused(document: dict[str, Any], data: st.DataObject) -> None:
    changed = dict(document)
    changed[data.draw(st.sampled_from([*document, "surplus"]))] = data.draw(msgpack_values)
    try_all(msgpack.packb(changed))


@pytest.mark.parametrize("depth", [100, 1000, 1100, 100_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a"])
def test_deep_nesting_is_refused(depth: int, opening: bytes) -> None:
    try_all(opening * depth + b"\xc0")
    try_all(b"[" * depth)


@pytest.mark.parametrize(
    "payload",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of 4 billion
        b"\xdf\xff\xff\xff\xff",  # a map of 4 billion
        b"\xc6\xff\xff\xff\xff",  # 4 GB of bytes
        b"\xdb\xff\xff\xff\xff",  # 4 GB of text
        b"\xc9\xff\xff\xff\xff\x01",  # an extension of 4 GB
        b"\xc7\x0c\xff" + b"\xff" * 12,  # a timestamp far outside any calendar
        b"\xc1",  # never used
        b"\x81\xa4type\xa5Hello\xc0",  # a message and more
        b"",
    ],
)
def test_a_length_that_the_payload_cannot_hold_is_refused(payload: bytes) -> None:
    for expected in EXPECTED:
        with pytest.raises(PeerError):
            decode(payload, expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e31])
def test_a_metric_that_json_cannot_carry_is_refused(value: float) -> None:
    with pytest.raises(PeerError, match="metrics"):
        decode(msgpack.packb({**OFFER, "metrics": {"loss": value}}), Say)
    with pytest.raises(PeerError):
        decode_story(b'{"event":"e","text":"t","metrics":{"loss":1e400}}', StoryEvent)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "Pi"),
        ("device", "pi\n"),
        ("device", "-pi"),
        ("device", "p" * 33),
        ("device", ""),
        ("device", "../pi"),
        ("round", 0),
        ("round", -1),
        ("round", 2**53),
        ("round", 1.5),
        ("round", "1"),
        ("round", True),
        ("plan", "0" * 63),
        ("plan", "0" * 64 + "\n"),
        ("plan", "g" * 64),
        ("num_examples", 0),
        ("metrics", {"": 1.0}),
        ("metrics", {"m" * 101: 1.0}),
        ("metrics", {str(i): 1.0 for i in range(65)}),
        ("update", {"id": "1" * 64, "head_bytes": 0, "size": 8, "chunk_bytes": 65_536}),
        ("update", {"id": "1" * 64, "head_bytes": 100, "size": -1, "chunk_bytes": 65_536}),
        ("update", {"id": "1" * 64, "head_bytes": 100, "size": 8, "chunk_bytes": 4095}),
        ("update", {"id": "1" * 64, "head_bytes": 100, "size": 8, "chunk_bytes": 2**19}),
        ("type", "Nonsense"),
        ("type", "Invite"),
        ("surplus", 1),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(field: str, value: Any) -> None:
    decode(msgpack.packb(OFFER), Say)
    with pytest.raises(PeerError):
        decode(msgpack.packb({**OFFER, field: value}), Say)


@pytest.mark.parametrize("field", [field for field in OFFER if field != "metrics"])
def test_a_missing_field_is_refused(field: str) -> None:
    with pytest.raises(PeerError):
        decode(msgpack.packb({key: value for key, value in OFFER.items() if key != field}), Say)


def test_an_oversized_chunk_is_refused() -> None:
    payload = encode(Chunk(blob="0" * 64, index=0, data=bytes(2**18 + 1)))
    with pytest.raises(PeerError):
        decode(payload, Chunk)


@given(st.text(max_size=600), st.integers(1, 500))
def test_a_clipped_sentence_fits(text: str, limit: int) -> None:
    assert len(clip(text, limit)) <= limit
    assert clip(text, 600) == text
