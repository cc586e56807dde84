"""The short table of faults: one or two injections a row, over all rows at once."""

from pathlib import Path

import pytest

from tests.faults import brokers, campaign
from tests.faults.report import Injection
from tests.faults.table import ROWS

pytestmark = pytest.mark.system

OTHERS = [kind for kind in brokers.KINDS if kind != "mosquitto" and not brokers.absence(kind)]
"""Beside Mosquitto, as far as they are installed: `make faults` installs what is missing."""


@pytest.fixture(scope="module")
def injections(tmp_path_factory: pytest.TempPathFactory) -> list[Injection]:
    """Every row's short seeds, injected; an undisturbed round that differs from the oracle's raises here."""
    folder: Path = tmp_path_factory.mktemp("faults")
    rows = list(ROWS.values())
    units = [*campaign.units(rows, None, folder), *campaign.matrix(OTHERS, rows, None, folder)]
    return [injection for found in campaign.run(units) for injection in found.injections]


@pytest.mark.parametrize("number", ROWS)
def test_fault_is_survived(injections: list[Injection], number: int) -> None:
    mine = [injection for injection in injections if injection.row == number and injection.broker == "mosquitto"]
    assert tuple(injection.seed for injection in mine) == ROWS[number].short_seeds
    assert [injection.note for injection in mine if not injection.survived] == []


@pytest.mark.parametrize("kind", OTHERS)
def test_the_death_of_any_broker_is_survived(injections: list[Injection], kind: str) -> None:
    mine = [injection for injection in injections if injection.broker == kind]
    assert mine
    assert [injection.note for injection in mine if not injection.survived] == []
