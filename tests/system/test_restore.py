"""A coordinator whose state comes back from a backup goes on from there, with devices that know of later rounds."""

import shutil
from pathlib import Path

import pytest

from common.messages import Command, Offer, Result, Say, decode
from tests.system.conftest import LiveFederation, Onlooker

pytestmark = pytest.mark.system

SAYS, COMMANDS = "fedpi-wire/2/rehearsal/dev/{}/say", "fedpi-wire/2/rehearsal/dev/{}/cmd"


def offers(onlooker: Onlooker, device: str) -> dict[int, bytes]:
    """Return the offers of a device that were heard, as they travelled, by round."""
    heard = [heard.payload for heard in onlooker.below(SAYS.format(device))]
    found = [(decode(payload, Say), payload) for payload in heard]
    return {message.round: payload for message, payload in found if isinstance(message, Offer)}


def not_counted(onlooker: Onlooker, device: str) -> list[Result]:
    heard = [decode(heard.payload, Command) for heard in onlooker.below(COMMANDS.format(device))]
    return [message for message in heard if isinstance(message, Result) and not message.counted]


def test_a_coordinator_that_is_restored_from_a_backup_goes_on_where_the_backup_was_made(tmp_path: Path) -> None:
    with LiveFederation(tmp_path / "live", {"rpi1": 7, "rpi2": 9}) as live:
        live.begin("mosquitto")
        live.run(2)
        live.processes.pop("coordinator").stop()
        state, backup = live.folder / "coordinator", tmp_path / "backup"
        shutil.copytree(state, backup)
        live.start_coordinator()
        with live.onlooker("fedpi-wire/2/rehearsal/dev/#") as onlooker:
            later = live.run(2)
            assert [row.round for row in later] == [3, 4]
            lost = offers(onlooker, "rpi1")
            assert sorted(lost) == [3, 4]

            live.processes.pop("coordinator").stop()
            live.store.close()
            shutil.rmtree(state)
            shutil.copytree(backup, state)
            live.start_coordinator()
            live.store = live.open_store(60.0)
            live.until(
                lambda: live.log("coordinator").count("serves the federation") == 3, "the third start did not serve"
            )
            before = live.model()
            for payload in lost.values():  # what a device, or somebody who heard it, says again of rounds that are lost
                onlooker.say(SAYS.format("rpi1"), payload).wait_for_publish(60.0)
            live.until(lambda: len(not_counted(onlooker, "rpi1")) >= len(lost), "the lost rounds' offers had no answer")
            assert all("not in the ledger here" in told.reason for told in not_counted(onlooker, "rpi1"))
            (again,) = live.run()
            (anew,) = [payload for number, payload in offers(onlooker, "rpi1").items() if number == 3]
        assert (again.round, again.phase, again.reported) == (3, "committed", ("rpi1", "rpi2"))
        assert live.model() == live.expect(before, 3)
        assert decode(anew, Say).generation != decode(lost[3], Say).generation
