"""A coordinator and two devices, their disks, and what is on its way: one state of them all, for model checks."""

import dataclasses

import msgspec
from msgspec.structs import replace

from common.messages import Accept, CheckIn, Failed, Invite, Offer, Receipt, Ref, Refusal, Result, RoundStatus
from coordinator.round_state import Round
from device.session import Session
from tests.rounds import open_round, plan_of

DEVICES = ("a", "b")
Message = CheckIn | Accept | Failed | Offer | Invite | Receipt | Refusal | Result


def model(number: int) -> Ref:
    """The global model after round `number`."""
    return Ref(id=f"{number:064x}", head_bytes=100, size=8, chunk_bytes=4096)


def update(device: str, number: int) -> Ref:
    """What a device makes of a round: the same in every repetition."""
    return Ref(id=f"{number:032x}{DEVICES.index(device) + 1:032x}", head_bytes=100, size=8, chunk_bytes=4096)


def opened(number: int, minimum: int, base: Ref | None = None) -> Round:
    plan = plan_of(number, base or model(number - 1))
    return open_round(plan, goal=2, minimum=minimum, selection_s=1.0, deadline_s=1.0)


class World(msgspec.Struct, frozen=True):
    """Both sides, their disks, and what is on its way. Devices stand in the order of DEVICES."""

    round: Round
    saved: Round
    retained: RoundStatus
    sessions: tuple[Session, ...]
    kept: tuple[Offer | None, ...]
    in_flight: tuple[Message, ...] = ()
    collecting: tuple[Offer, ...] = ()
    counted: tuple[tuple[int, str, str], ...] = ()
    past: tuple[Round, ...] = ()
    """Rounds that are over, as the journal has them."""
    greeted: tuple[bool, ...] = (True,) * len(DEVICES)
    """Whether a device has heard of the coordinator's present start."""
    promised: tuple[tuple[str, str], ...] = ()
    """Updates whose devices were told, in this round, that they count."""
    faults: int = 0
    cuts: int = 0
    is_averaging: bool = False
    is_over: bool = False

    def key(self) -> bytes:
        return msgspec.msgpack.encode(self)


def timeless(state: Round) -> Round:
    members = tuple(replace(m, advanced_at=0.0) for m in state.members)
    return replace(state, phase_since=0.0, members=members)


def still(session: Session) -> Session:
    if session.task is None:
        return session
    return dataclasses.replace(session, task=dataclasses.replace(session.task, repeat_at=0.0, repeat_s=0.0))


def with_device(world: World, place: int, session: Session, kept: Offer | None) -> World:
    return replace(
        world,
        sessions=(*world.sessions[:place], session, *world.sessions[place + 1 :]),
        kept=(*world.kept[:place], kept, *world.kept[place + 1 :]),
    )
