"""The short table of faults: one or two injections a row, over all rows at once."""

from pathlib import Path

import pytest

from tests.faults import campaign
from tests.faults.report import Injection
from tests.faults.table import ROWS

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def injections(tmp_path_factory: pytest.TempPathFactory) -> list[Injection]:
    """Every row's short seeds, injected; an undisturbed round that differs from the oracle's raises here."""
    folder: Path = tmp_path_factory.mktemp("faults")
    units = campaign.units(list(ROWS.values()), None, folder)
    return [injection for found in campaign.run(units) for injection in found.injections]


@pytest.mark.parametrize("number", ROWS)
def test_fault_is_survived(injections: list[Injection], number: int) -> None:
    mine = [injection for injection in injections if injection.row == number]
    assert tuple(injection.seed for injection in mine) == ROWS[number].short_seeds
    assert [injection.note for injection in mine if not injection.survived] == []
