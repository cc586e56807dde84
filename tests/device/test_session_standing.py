"""How a device learns where it stands in a round, and what became of its update."""

from dataclasses import replace

import pytest

from common.messages import Decline
from device.session import WAITS, Stage
from device.session_events import CancelJob, DropUpdate, Fetch, Pointed, Reconnected, Speak, Tick
from tests.device.test_session import (
    BASE,
    CHECK_IN,
    OFFER,
    OTHER,
    Device,
    at,
    check_in,
    invited,
    offer,
    pointer,
    receipted,
    refused,
    resolved,
)


def test_a_kept_offer_is_said_again_after_a_restart() -> None:
    device = Device(kept=offer())
    assert device.stage() is Stage.OFFERING
    assert device.take(pointer("reporting"), Tick()) == [OFFER]
    device.take(receipted())
    assert device.stage() is Stage.DELIVERED


@pytest.mark.parametrize(
    "status",
    [pointer("reporting", 6), pointer("reporting", generation=OTHER), pointer("committed"), pointer("idle")],
)
def test_a_kept_offer_of_a_round_that_is_over_is_dropped(status: Pointed) -> None:
    device = Device(kept=offer())
    commands = device.take(status)
    assert DropUpdate() in commands
    assert CHECK_IN in commands  # to learn what became of it
    assert device.state.task is None or device.stage() is Stage.JOINING


def test_a_device_that_lost_its_offer_though_it_counts_has_nothing_left_to_do() -> None:
    device = Device()
    device.take(pointer("reporting"), receipted())
    assert device.stage() is Stage.DELIVERED


def test_a_device_that_comes_late_asks_where_it_stands_and_is_told_that_the_round_began_without_it() -> None:
    device = Device()
    assert device.take(pointer("reporting")) == [Fetch(BASE), CHECK_IN]
    device.take(refused())
    assert device.take(Tick(), pointer("reporting"), after_s=1000.0) == []
    assert device.take(pointer("selecting", 6))[-1] == check_in(6)


def test_a_round_that_averages_is_none_of_its_business() -> None:
    device = Device()
    assert device.take(pointer("aggregating")) == [Fetch(BASE)]
    assert device.state.task is None


def test_other_labels_or_another_order_of_them_are_declined_with_both() -> None:
    device = Device()
    device.state = replace(device.state, labels=("yes", "no"))
    (said,) = device.take(pointer("selecting"), invited())
    assert isinstance(said, Speak)
    assert isinstance(said.message, Decline)
    assert "yes, no" in said.message.reason
    assert "no, yes" in said.message.reason


def test_a_round_of_the_same_number_under_another_generation_is_another_round() -> None:
    device = at(Stage.OFFERING)
    assert device.take(receipted(generation=OTHER), refused(generation=OTHER), invited(generation=OTHER)) == []
    assert device.stage() is Stage.OFFERING
    commands = device.take(pointer("selecting", generation=OTHER))
    assert commands == [CHECK_IN, CancelJob(), DropUpdate(), check_in(generation=OTHER)]


def test_a_device_that_was_told_the_result_does_not_ask_for_it() -> None:
    device = at(Stage.DELIVERED)
    assert device.take(resolved(counted=False), pointer("committed")) == [CancelJob(), DropUpdate()]
    assert device.state.doing == "waiting for a round; its update of round 5 did not count: too late"


def test_a_result_of_an_earlier_round_does_not_hide_a_later_one() -> None:
    device = Device()
    device.take(resolved(5), resolved(4, counted=False))
    assert device.state.doing == "waiting for a round; its update of round 5 counted"


def test_who_has_delivered_asks_a_new_coordinator_whether_the_update_is_still_there() -> None:
    device = at(Stage.DELIVERED)
    assert device.take(Reconnected()) == [CHECK_IN]
    assert device.take(Tick(), after_s=WAITS.repeat_s) == [CHECK_IN]
    assert device.take(receipted(), Tick(), after_s=1000.0) == []
    device.take(Reconnected())
    assert device.take(invited()) == [OFFER]
    assert device.stage() is Stage.OFFERING
