"""Undisturbed rounds over real brokers: what they compute, what they cost, and the story that they tell."""

import re

import pytest

from tests.system.conftest import Begin, LiveFederation, Onlooker, expect, initial_model, read_json

pytestmark = pytest.mark.system

ROUNDS = 3
EXAMPLES = {"rpi3": 11, "rpi1": 7, "rpi2": 30}


@pytest.fixture(scope="module", params=["mosquitto", "embedded"])
def told(request: pytest.FixtureRequest, shared_federation: Begin) -> tuple[LiveFederation, Onlooker]:
    # Wishes are gathered until every device has asked: on a busy machine that may take longer than the default.
    live = shared_federation(request.param, EXAMPLES, training={"epochs": 1}, transfer={"merge_s": 10})
    with live.onlooker() as onlooker:
        assert live.model() == initial_model()
        rows = live.run(ROUNDS)
        assert [row.phase for row in rows] == ["committed"] * ROUNDS
    return live, onlooker


def test_x(told): 
    live, onlooker = told
    model = initial_model()
    for number in range(1, ROUNDS+1):
        model = expect(model, number, EXAMPLES)
    assert live.model() == model
    for h in onlooker.heard:
        if h.topic.startswith("fedpi/"): print(h.topic, h.payload.decode())
    assert 0
