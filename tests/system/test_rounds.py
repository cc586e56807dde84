"""Undisturbed rounds over real brokers: what they compute, what they cost, and what people read of them."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from coordinator.store import RoundRow
from tests.system.conftest import LiveFederation, Onlooker, expect, initial_model, read_json

pytestmark = pytest.mark.system

ROUNDS = 3
EXAMPLES = {"rpi3": 11, "rpi1": 7, "rpi2": 30}
COORDINATOR = ("fedpi/2/rehearsal/coord/", "fedpi-wire/2/rehearsal/blob/", "fedpi-wire/2/rehearsal/dev/")


class Played(NamedTuple):
    """Rounds that are over, the models before and after them, and who heard everything that was said."""

    live: LiveFederation
    models: tuple[bytes, bytes]
    initial_id: str
    rows: list[RoundRow]
    onlooker: Onlooker


@pytest.fixture(scope="module", params=["mosquitto", "embedded"])
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    with LiveFederation(tmp_path_factory.mktemp("rounds"), EXAMPLES) as live:
        # Wishes are gathered until every device has asked: on a busy machine that may take longer than the default.
        live.begin(request.param, transfer={"merge_s": 10})
        initial, ref = live.model(), live.store.global_model()
        assert ref is not None
        with live.onlooker() as onlooker:
            rows = live.run(ROUNDS)
            yield Played(live, (initial, live.model()), ref.id, rows, onlooker)


def test_runs_over_any_broker_arrive_at_the_bytes_of_an_independent_calculation(played: Played) -> None:
    model = initial_model()
    assert played.models[0] == model
    for number in range(1, ROUNDS + 1):
        model = expect(model, number, EXAMPLES)
    assert [row.phase for row in played.rows] == ["committed"] * ROUNDS
    assert played.models[1] == model


def test_every_update_counts_with_its_examples(played: Played) -> None:
    for number in range(1, ROUNDS + 1):
        ledger = played.live.ledger(number)
        assert {device: (row.standing, row.num_examples) for device, row in ledger.items()} == {
            device: ("reported", count) for device, count in EXAMPLES.items()
        }


def test_coordinator_publishes_the_model_once_a_round(played: Played) -> None:
    size = len(played.models[0])
    said = [
        heard
        for prefix in COORDINATOR
        for heard in played.onlooker.below(prefix)
        if not heard.topic.endswith(("/say", "/up")) and f"/blob/{played.initial_id[:16]}" not in heard.topic
    ]
    assert sum(len(heard.topic) + len(heard.payload) for heard in said) <= 1.03 * size * ROUNDS
    assert all(row.bytes_down <= 1.03 * size for row in played.rows)
    # The journal counts what was really said: rounds after the first begin with the download of a new model.
    assert all(row.bytes_down >= size for row in played.rows[1:])


def test_people_read_small_json_documents(played: Played) -> None:
    documents = played.onlooker.below("fedpi/")
    assert len(documents) > 5 * ROUNDS
    assert max(len(heard.payload) for heard in documents) <= 4096
    assert [heard.topic for heard in documents if not read_json(heard.payload)["text"]] == []
