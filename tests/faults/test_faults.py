"""The short table of faults: one or two injections a row, over all rows at once."""

from pathlib import Path

import pytest

from tests.faults import brokers, campaign
from tests.faults.report import Injection
from tests.faults.table import ROWS

pytestmark = pytest.mark.system

OTHERS = [kind for kind in brokers.KINDS if kind != "mosquitto"]
"""`make faults` installs those that are missing."""


@pytest.fixture(scope="module")
def injections(tmp_path_factory: pytest.TempPathFactory) -> list[Injection]:
    """Every row's short seeds, injected; an undisturbed round that differs from the oracle's raises here."""
    folder: Path = tmp_path_factory.mktemp("faults")
    rows, present = list(ROWS.values()), [kind for kind in OTHERS if not brokers.absence(kind)]
    units = [*campaign.units(rows, None, folder), *campaign.matrix(present, rows, None, folder)]
    return [injection for found in campaign.run(units) for injection in found.injections]


def check(injections: list[Injection]) -> None:
    """Let the test fail for what was not survived; where something could not be injected it is shown as skipped."""
    assert [injection.note for injection in injections if not (injection.survived or injection.skipped)] == []
    if skipped := next((injection.skipped for injection in injections if injection.skipped), ""):
        pytest.skip(skipped)


@pytest.mark.parametrize("number", ROWS)
def test_fault_is_survived(injections: list[Injection], number: int) -> None:
    mine = [injection for injection in injections if injection.row == number and injection.broker == "mosquitto"]
    assert tuple(injection.seed for injection in mine) == ROWS[number].short_seeds
    check(mine)


@pytest.mark.parametrize("kind", OTHERS)
def test_the_death_of_any_broker_is_survived(injections: list[Injection], kind: str) -> None:
    if sentence := brokers.absence(kind):
        pytest.skip(sentence)
    mine = [injection for injection in injections if injection.broker == kind]
    assert mine
    check(mine)
