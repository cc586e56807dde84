"""The commands that tests/machines types are in the sections of README and manual in which it looks for them."""

import pytest

from tests.machines.__main__ import ROLES
from tests.machines.roots import MachineError
from tests.machines.typed import MANUAL, README, shown, shown_with


@pytest.mark.parametrize("words", [" start ", " devices", " export ", " plot ", " split "])
def test_the_readme_shows_what_an_administrator_types_at_the_coordinator(words: str) -> None:
    line = shown_with(README, "Coordinator", words)
    assert "fedpi-coordinator" in line
    assert line.startswith("sudo ") or words == " split "


@pytest.mark.parametrize("roles", ROLES.values())
def test_the_readme_shows_how_each_machine_is_installed(roles: tuple[str, ...]) -> None:
    assert shown_with(README, "Install", " ".join(roles)).startswith("sudo ./install.sh ")


def test_the_manual_shows_how_to_upgrade_and_to_go_back() -> None:
    assert shown(MANUAL, "Upgrade")[-1].startswith("sudo ./install.sh ")
    assert shown(MANUAL, "Go back to the earlier version") == ["sudo ./install.sh --roll-back"]


def test_a_section_or_a_command_that_is_gone_is_told() -> None:
    with pytest.raises(MachineError, match=r"README.md has no section 'Nothing'"):
        shown(README, "Nothing")
    with pytest.raises(MachineError, match=r"0 commands with ' nothing '"):
        shown_with(README, "Coordinator", " nothing ")
