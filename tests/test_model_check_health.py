"""Every reachable state of a federation whose devices may turn unfit at any moment, and fit again."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from common.messages import Decline
from coordinator import events
from device.session import Stage
from device.session_events import Examined
from tests.test_model_check import Model, explore
from tests.worlds import DEVICES, World

pytestmark = pytest.mark.slow


class Unwell(Model):
    """`faults` bounds how often a device turns unfit; it may be fit again at any time, and is in the end."""

    def heard(self, world: World, message: Any) -> World:
        if not isinstance(message, Decline):
            return super().heard(world, message)
        if message.round != world.round.number:
            return world
        return self.coordinator(world, events.Declined(device=message.device, reason=message.reason))

    def good(self, world: World) -> Iterator[World]:
        yield from super().good(world)
        for place in range(len(DEVICES)):
            yield self.device(world, place, Examined(""))

    def misfortune(self, world: World) -> Iterator[World]:
        world = replace(world, faults=world.faults + 1)
        for place in range(len(DEVICES)):
            yield self.device(world, place, Examined("too hot"))

    def sweep(self, world: World) -> World:
        for place in range(len(DEVICES)):
            world = self.delivered(self.device(world, place, Examined("")))
        return super().sweep(world)


@pytest.mark.parametrize(
    "made", [Unwell(faults=1), Unwell(minimum=1, faults=1)], ids=["the round needs both", "one will do"]
)
def test_every_reachable_state_of_unwell_devices_is_safe_and_leads_to_an_end(made: Unwell) -> None:
    seen = explore(made)
    fair, known = dataclasses.replace(made, capacity=100), set[bytes]()
    for world in seen.values():
        stuck = fair.settle(replace(world, in_flight=()), known)
        assert stuck is None, f"nobody goes on, of {len(seen)} states: {stuck}"
    stages = {session.task.stage for world in seen.values() for session in world.sessions if session.task}
    assert Stage.DECLINED in stages
    assert any(world.counted for world in seen.values())
