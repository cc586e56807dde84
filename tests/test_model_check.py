"""Every reachable state of one coordinator and two devices on a network that loses, repeats and reorders.

The two state machines are the real ones. A transfer is a single step here, time is a step that a deadline may take
at any moment, and what each side keeps on disk is what its store keeps. A message may come any number of times, or
never, or late, until `capacity` newer ones have taken its place. Crashes, failed trainings and power cuts are bounded.
"""

import dataclasses
from collections import deque
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from common import plan as plans
from common.messages import Accept, CheckIn, Failed, Invite, Offer, Receipt, Refusal, Result
from coordinator import events
from coordinator import round as rounds
from coordinator.round_state import OPEN, Phase, Round, result_of
from coordinator.story import round_status
from device import session as sessions
from device import session_events as happened
from device.session import Session, Stage
from device.session_events import DropUpdate, Fetch, Fetched, Speak
from tests.rounds import GENERATION
from tests.worlds import DEVICES, Message, World, model, opened, still, timeless, update, with_device

pytestmark = pytest.mark.slow


FOREVER = 1e9


@dataclasses.dataclass(frozen=True)
class Model:
    """What may happen: `rounds` in a row, of which each needs `minimum` devices, with so many faults in all."""

    rounds: int = 1
    minimum: int = 2
    faults: int = 0
    """Crashes of either side and failed trainings."""
    cuts: int = 0
    """Power cuts at the coordinator."""
    capacity: int = 1
    """Messages on their way that the network remembers."""
    bad: str = ""
    """A device whose updates are never admitted."""

    def start(self) -> World:
        first = opened(1, self.minimum)
        fresh = tuple(Session(device) for device in DEVICES)
        return World(first, first, round_status(first, "0"), fresh, (None,) * len(DEVICES))

    def send(self, world: World, message: Message) -> World:
        others = tuple(m for m in world.in_flight if m != message)
        return replace(world, in_flight=(*others, message)[-self.capacity :])

    # ---- the coordinator's loop, as `coordinator.service` has it --------------------------------

    def coordinator(self, world: World, event: events.Event, now: float = 0.0) -> World:
        after, commands = rounds.step(world.round, event, now)
        return self.enter(world, timeless(after), commands)

    def enter(self, world: World, after: Round, commands: tuple[events.Command, ...]) -> World:
        world = replace(world, round=after, saved=after if commands else world.saved)
        for command in commands:
            match command:
                case events.Announce():
                    world = replace(world, retained=round_status(after, "0"))
                case events.Tell(message=message):
                    if isinstance(message, Receipt):
                        promise = (message.device, message.update)
                        world = replace(world, promised=tuple(sorted({*world.promised, promise})))
                    world = self.send(world, message)
                case events.Aggregate():
                    world = replace(world, is_averaging=True)
                case events.Collect(offer=offer):
                    others = (o for o in world.collecting if o.device != offer.device)
                    world = replace(world, collecting=tuple(sorted((*others, offer), key=lambda o: o.device)))
        return world if after.phase in {*OPEN, Phase.AGGREGATING} else self.finish(world)

    def finish(self, world: World) -> World:
        done = world.round
        if done.phase is Phase.COMMITTED:
            new = [(done.number, m.device, m.update.id) for m in done.reported if m.update]
            assert len(new) == len(done.reported) >= self.minimum, "committed below the minimum"
            assert {row[2] for row in new}.isdisjoint(row[2] for row in world.counted), "an update counts twice"
            for number, device, blob in new:
                assert blob == update(device, number).id, "an update of another round counts"
                assert device != self.bad, "an update counts that is not admitted"
            assert set(world.promised) <= {row[1:] for row in new} or world.cuts, "a promise is broken"
            world = replace(world, counted=tuple(sorted((*world.counted, *new))))
        world = replace(world, collecting=(), promised=(), is_averaging=False)
        if done.number == self.rounds:
            return replace(world, is_over=True)
        following = opened(done.number + 1, self.minimum, None if done.phase is Phase.COMMITTED else done.base)
        world = replace(world, past=(*world.past, done))
        return replace(world, round=following, saved=following, retained=round_status(following, "0"))

    def heard(self, world: World, message: Message) -> World:
        """The coordinator takes a message, as `coordinator.reception` admits it."""
        match message:
            case CheckIn() | Offer() if message.round != world.round.number:
                return self.late(world, message)
            case _ if message.round != world.round.number:
                return world
            case Offer():
                return self.coordinator(world, events.Offered(offer=message))
            case CheckIn(device=device):
                return self.coordinator(world, events.CheckedIn(device=device))
            case Accept(device=device):
                return self.coordinator(world, events.Accepted(device=device))
            case Failed(device=device, reason=reason):
                return self.coordinator(world, events.Failed(device=device, reason=reason))
        raise AssertionError(message)

    def late(self, world: World, message: CheckIn | Offer) -> World:
        """The coordinator tells what became of a device in a round that is over."""
        for done in world.past:
            member = done.member(message.device)
            if done.number == message.round and member is not None:
                return self.send(world, result_of(done, member))
        device, number = message.device, message.round
        return self.send(world, Refusal(device=device, round=number, generation=GENERATION, reason="not known"))

    def arrived(self, world: World, offer: Offer) -> World:
        """The last chunk of an update is here, if its device still has it."""
        if world.kept[DEVICES.index(offer.device)] != offer:
            return world
        world = replace(world, collecting=tuple(o for o in world.collecting if o != offer))
        if offer.device == self.bad:
            rejected = events.Rejected(device=offer.device, update=offer.update.id, reason="not finite")
            return self.coordinator(world, rejected)
        return self.coordinator(world, events.Delivered(device=offer.device, update=offer.update.id))

    def restarted(self, world: World, saved: Round, lost: frozenset[str] = frozenset()) -> World:
        """The coordinator starts again from its journal; what was on its way to it may come yet."""
        resumed, commands = rounds.resume(saved, 0.0, lost)
        world = replace(world, collecting=(), is_averaging=False, greeted=(False,) * len(DEVICES))
        return self.enter(world, timeless(resumed), commands)

    # ---- a device's loop, as `device.daemon` has it ---------------------------------------------

    def device(self, world: World, place: int, event: happened.Event, now: float = 0.0) -> World:
        after, commands = sessions.step(world.sessions[place], event, now)
        world = with_device(world, place, still(after), world.kept[place])
        for command in commands:
            match command:
                case Speak(message=Accept() as accept):
                    world = self.heard(world, accept)
                case Fetch(ref=ref):
                    world = self.device(world, place, Fetched(ref.id))
                case Speak(message=message):
                    world = self.send(world, message)  # type: ignore[arg-type]  # no session declines
                case DropUpdate():
                    world = with_device(world, place, world.sessions[place], None)
        return world

    def told(self, world: World, message: Message) -> World:
        """A device takes a command."""
        place = DEVICES.index(message.device)
        match message:
            case Invite(plan=packed):
                return self.device(world, place, happened.Invited(plans.read(packed), plans.digest(packed)))
            case Receipt(round=number):
                return self.device(world, place, happened.Receipted(number, message.generation))
            case Refusal(round=number, reason=reason):
                return self.device(world, place, happened.WasRefused(number, message.generation, reason))
            case Result():
                self.truth(world, message)
                return self.device(world, place, happened.WasResolved(message))
        raise AssertionError(message)

    def truth(self, world: World, result: Result) -> None:
        """A device is told that its update counts where it does, and that it does not where it does not."""
        counted = (result.round, result.device) in {row[:2] for row in world.counted}
        assert result.counted == counted, "a device is told wrongly what became of its update"

    # ---- what may happen ------------------------------------------------------------------------

    def good(self, world: World) -> Iterator[World]:
        """What happens of itself on a good day. Time stands still for the coordinator."""
        for message in world.in_flight:
            yield self.carry(world, message)
        for place in range(len(DEVICES)):
            yield self.look(world, place)
            yield self.train(world, place)
            yield self.repeat(world, place)
        for offer in world.collecting:
            yield self.arrived(world, offer)
        yield self.average(world)
        yield self.write_down(world)

    def look(self, world: World, place: int) -> World:
        """A device is told where the round stands, perhaps once more."""
        if not world.greeted[place]:
            greeted = tuple(known or number == place for number, known in enumerate(world.greeted))
            world = self.device(replace(world, greeted=greeted), place, happened.Reconnected())
        return self.device(world, place, happened.Pointed(world.retained))

    def train(self, world: World, place: int) -> World:
        """A device that trains is done."""
        task = world.sessions[place].task
        if task is None or task.stage is not Stage.TRAINING or task.plan is None:
            return world
        name, made = DEVICES[place], update(DEVICES[place], task.round)
        offer = Offer(
            device=name,
            round=task.round,
            generation=task.generation,
            plan=task.digest,
            update=made,
            num_examples=1,
        )
        return self.device(with_device(world, place, world.sessions[place], offer), place, happened.Trained(offer))

    def repeat(self, world: World, place: int) -> World:
        """A device says again what nobody has answered."""
        return self.device(world, place, happened.Tick(), FOREVER)

    def average(self, world: World) -> World:
        if not world.is_averaging:
            return world
        return self.coordinator(world, events.Aggregated(result=model(world.round.number)))

    def write_down(self, world: World) -> World:
        """The coordinator saves and tells what no command waits for."""
        return replace(world, saved=world.round, retained=round_status(world.round, "0"))

    def carry(self, world: World, message: Message) -> World:
        is_for_device = isinstance(message, Invite | Receipt | Refusal | Result)
        return self.told(world, message) if is_for_device else self.heard(world, message)

    def misfortune(self, world: World) -> Iterator[World]:
        """What is bounded: crashes of either side, and failed trainings."""
        world = replace(world, faults=world.faults + 1)
        yield self.restarted(world, world.saved)
        for after in self.good(world):  # a crash after the checkpoint, before a word of it was said
            if after.round.number == world.round.number and not after.is_over:
                yield self.restarted(replace(after, in_flight=world.in_flight, retained=world.retained), after.saved)
        for place, device in enumerate(DEVICES):
            fresh = still(sessions.resume(Session(device), world.kept[place], 0.0))
            yield with_device(world, place, fresh, world.kept[place])
            if (task := world.sessions[place].task) and task.stage is Stage.TRAINING:
                yield self.device(world, place, happened.TrainingFailed(task.round, "no memory"))

    def power_cuts(self, world: World) -> Iterator[World]:
        """The journal, or one update, goes back to before it reached the disk."""
        world = replace(world, cuts=world.cuts + 1)
        yield self.restarted(world, opened(world.round.number, self.minimum))
        for member in world.saved.reported:
            yield self.restarted(world, world.saved, frozenset({member.device}))

    # ---- what must come of it -------------------------------------------------------------------

    def sweep(self, world: World) -> World:
        """Let everything happen once that happens of itself, in a fixed order; nothing is lost."""
        for place in range(len(DEVICES)):
            for act in (self.look, self.train, self.repeat):
                world = self.delivered(act(world, place))
        for offer in world.collecting:
            world = self.delivered(self.arrived(world, offer))
        return self.write_down(self.average(world))

    def delivered(self, world: World) -> World:
        """Carry every message that is on its way, and the answers."""
        while world.in_flight:
            first, *others = world.in_flight
            world = self.carry(replace(world, in_flight=tuple(others)), first)
        return world

    def settle(self, world: World, known: set[bytes]) -> World | None:
        """Sweep until the rounds are over or nothing moves any more; None where that ends in a known good state."""
        trail: list[bytes] = []
        while (key := world.key()) not in trail:
            if key in known or world.is_over:
                known.update(trail)
                return None
            trail.append(key)
            world = self.sweep(world)
        return world

    def following(self, world: World) -> Iterator[World]:
        yield from self.good(world)
        yield self.coordinator(world, events.Tick(), FOREVER)
        if world.faults < self.faults:
            yield from self.misfortune(world)
        if world.cuts < self.cuts:
            yield from self.power_cuts(world)


def explore(made: Model) -> dict[bytes, World]:
    """All reachable worlds; the assertions of safety fire on the way."""
    start = made.start()
    seen = {start.key(): start}
    todo = deque([start])
    while todo:
        world = todo.popleft()
        for after in made.following(world):
            key = after.key()
            if key not in seen:
                seen[key] = after
                if not after.is_over:
                    todo.append(after)
    return seen


@pytest.mark.parametrize(
    "made",
    [Model(rounds=2), Model(capacity=2), Model(minimum=1, bad="b"), Model(faults=1), Model(cuts=1)],
    ids=["two rounds", "reordering", "a bad update", "one crash", "one power cut"],
)
def test_every_reachable_state_is_safe_and_leads_to_an_end(made: Model) -> None:
    seen = explore(made)
    fair, known = dataclasses.replace(made, capacity=100), set[bytes]()
    for world in seen.values():
        # All that is on its way is lost; from here on nothing is, and no deadline is needed.
        stuck = fair.settle(replace(world, in_flight=()), known)
        assert stuck is None, f"nobody goes on, of {len(seen)} states: {stuck}"
    assert any(world.counted for world in seen.values())
