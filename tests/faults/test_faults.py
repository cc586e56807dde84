"""The short table of faults: one or two injections a row, over all rows at once."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import brokers, campaign
from tests.faults.report import Injection
from tests.faults.table import ROWS

pytestmark = pytest.mark.system

SIGNED = (21, 25, 26, 27)
"""Rows that are injected once more with signed messages: those in which somebody says what is not his to say."""
OTHERS = [kind for kind in brokers.KINDS if kind != "mosquitto"]
"""`make faults` installs those that are missing."""


@pytest.fixture(scope="module")
def injections(tmp_path_factory: pytest.TempPathFactory) -> list[Injection]:
    """Every row's short seeds, injected; an undisturbed round that differs from the oracle's raises here."""
    folder: Path = tmp_path_factory.mktemp("faults")
    rows, present = list(ROWS.values()), [kind for kind in OTHERS if not brokers.absence(kind)]
    signed = campaign.units([ROWS[number] for number in SIGNED], None, folder / "signed")
    units = [
        *campaign.units(rows, None, folder),
        *campaign.matrix(present, rows, None, folder),
        *(replace(unit, is_signed=True) for unit in signed),
    ]
    return [injection for found in campaign.run(units) for injection in found.injections]


def check(injections: list[Injection]) -> None:
    """Let the test fail for what was not survived; where something could not be injected it is shown as skipped."""
    assert [injection.note for injection in injections if not (injection.survived or injection.skipped)] == []
    if skipped := next((injection.skipped for injection in injections if injection.skipped), ""):
        pytest.skip(skipped)


def of(injections: list[Injection], number: int, *, is_signed: bool) -> list[Injection]:
    mine = [i for i in injections if (i.row, i.broker, i.is_signed) == (number, "mosquitto", is_signed)]
    assert tuple(injection.seed for injection in mine) == ROWS[number].short_seeds
    return mine


@pytest.mark.parametrize("number", ROWS)
def test_fault_is_survived(injections: list[Injection], number: int) -> None:
    check(of(injections, number, is_signed=False))


@pytest.mark.parametrize("number", SIGNED)
def test_fault_is_survived_where_messages_are_signed(injections: list[Injection], number: int) -> None:
    check(of(injections, number, is_signed=True))


@pytest.mark.parametrize("kind", OTHERS)
def test_the_death_of_any_broker_is_survived(injections: list[Injection], kind: str) -> None:
    if sentence := brokers.absence(kind):
        pytest.skip(sentence)
    mine = [injection for injection in injections if injection.broker == kind]
    assert mine
    check(mine)
