"""Rows 24 and 25: the coordinator's state comes back from a backup, and what was said of the lost rounds comes again.

Rounds that will be lost are trained with another seed: what comes of them differs from all that must come afterwards.
"""

import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace

from broker.connection import Message
from common.messages import Receipt
from common.topics import Kind
from tests.faults import victims
from tests.faults.arena import DEVICES, SEED, UNHURRIED_S, WAIT_S, Arena, NotSurvivedError, Trial
from tests.faults.copies import SERVES, await_words
from tests.faults.launcher import Fault
from tests.faults.passing import COORDINATOR, Passing, Way, carries
from tests.faults.recorder import Recorder, everything, kinds_of, say_again, wire, without_second_hellos
from tests.faults.row import Outcome, Row
from tests.faults.rows_line import await_
from tests.faults.scenarios import govern, moment_of

LOST_SEED = 12

# ---- 24: restored -------------------------------------------------------------------------------


def restored(arena: Arena, rng: random.Random) -> Outcome:
    """Take a backup, between rounds or in one, lose rounds after it, and put it back, between rounds or in one."""
    is_open, is_lost_open, has_time = rng.random() < 0.4, arena.seed % 4 != 3, rng.random() < 0.5
    trial = _open_up_to(arena, rng) if is_open else None
    back_up(arena)
    if trial is not None:
        trial.finish()
    lost = rng.randint(1, 2)
    arena.open(lost).finish()
    if is_lost_open:
        _open_up_to(arena, rng)
    restore(arena)
    back = time.time()
    if trial is not None:  # it was open in the backup, so it goes on
        replace(trial, since=arena.log_sizes()).finish()
    elif has_time:
        arena.settle()
    closed = arena.open(lost + is_lost_open).finish()
    note = f"backup {'in' if is_open else 'between'} rounds, lost {lost}{' and an open one' if is_lost_open else ''}"
    return Outcome(max(closed - back, 0.0), arena.proxy.tally.resent_bytes, note)


def _open_up_to(arena: Arena, rng: random.Random) -> Trial:
    """Open a round and wait for one of its moments."""
    moment = moment_of(arena, rng)
    trial = arena.open()
    await_(moment, "a moment of the round")
    return trial


def back_up(arena: Arena) -> None:
    """Copy the coordinator's state as docs/operations.md says, while it is stopped; what comes then will be lost."""
    _end(arena)
    shutil.rmtree(arena.folder / "backup", ignore_errors=True)
    shutil.copytree(arena.folder / COORDINATOR, arena.folder / "backup")
    _begin(arena, LOST_SEED)


def restore(arena: Arena) -> None:
    """Put the backup in the place of the state, as after the loss of the disk."""
    _end(arena, is_killed=True)
    shutil.rmtree(arena.folder / COORDINATOR)
    shutil.copytree(arena.folder / "backup", arena.folder / COORDINATOR)
    _begin(arena, SEED)


def _end(arena: Arena, *, is_killed: bool = False) -> None:
    arena.store.close()  # so that the journal is at rest
    process = arena.processes.pop(COORDINATOR)
    if is_killed:
        process.kill()
    else:
        process.stop()


def _begin(arena: Arena, seed: int) -> None:
    victims.reconfigure(arena, COORDINATOR, training={"seed": seed})
    before = arena.log_sizes()
    arena.start_coordinator()
    arena.store = arena.open_store(WAIT_S)
    await_words(arena, COORDINATOR, SERVES, before)


# ---- 25: said again after a restore ---------------------------------------------------------------


def said_again(arena: Arena, rng: random.Random) -> Outcome:
    """Record a round, lose it, and publish all of it again while the round of its number runs.

    One device still holds its update of the lost round: it ended when it had offered it, or when it was about to
    delete it.
    """
    govern(arena, selection_s=UNHURRIED_S)  # the round waits for the one that holds an update
    holder, is_lost_open, is_selecting = rng.choice(DEVICES), arena.seed % 2 == 0, arena.seed // 2 % 2 == 0
    recorded = _lose_a_round(arena, holder, "say Offer after" if is_lost_open else "drop_update before")
    if not _holds_an_update(arena, holder):
        raise NotSurvivedError(f"{holder} holds no update of the lost round, so nothing was shown")
    delivers = carries(Kind.DEV_UP, Way.UP), rng.randint(1, 90)
    moment = arena.proxy.watch(_is_selecting) if is_selecting else arena.proxy.watch(*delivers)
    trial = arena.open()
    if not is_selecting:
        victims.launch(arena, holder)
    await_(moment, "a moment of the round")
    count = say_again(arena, recorded)
    if is_selecting:
        victims.launch(arena, holder)
    said = time.time()
    closed = trial.finish()
    when = "while devices check in" if is_selecting else "while they deliver"
    note = (
        f"{count} messages {when}; {holder} holds the lost round's update, which {'ran' if is_lost_open else 'ended'}"
    )
    return Outcome(max(closed - said, 0.0), arena.proxy.tally.resent_bytes, note)


def _lose_a_round(arena: Arena, holder: str, place: str) -> Sequence[Message]:
    """Run a round after a backup until `holder` ends at `place`, put the backup back; returns what was said in it."""
    if not victims.is_launched(arena, holder):
        victims.launch(arena, holder)
        arena.settle()
    recorder = Recorder(arena, *(everything() if arena.signing else wire()))
    recorder.start()
    back_up(arena)
    victims.arm(arena, holder, Fault(place))
    delivered = arena.proxy.watch(_is_receipt, len(DEVICES) - 1)
    arena.open()
    victims.await_end(arena, holder, place)
    await_(delivered, "the others' updates")
    recorded = recorder.stop()
    if missing := {"Hello", "CheckIn", "Invite", "Offer", "Want", "Chunk"} - kinds_of(recorded):
        raise NotSurvivedError(f"nobody said {', '.join(sorted(missing))} in the lost round")
    restore(arena)
    return recorded if arena.signing else list(without_second_hellos(recorded))


def _is_selecting(passing: Passing) -> bool:
    is_told = carries(Kind.COORD_ROUND, Way.UP)(passing)
    return is_told and b'"phase":"selecting"' in passing.publish.payload


def _is_receipt(passing: Passing) -> bool:
    return carries(Kind.DEV_CMD, Way.UP)(passing) and isinstance(passing.message, Receipt)


def _holds_an_update(arena: Arena, device: str) -> bool:
    """Whether a device that ended has an update on its disk."""
    return any((arena.folder / device / "updates").glob("*.body"))


SAYS = (r"round=\d+ refused: ", r"another process speaks as .*, or has just ended", r"exceeds its budget of ")
ROWS = (
    Row(
        number=24,
        fault="the coordinator's state is restored from a backup, rounds later",
        how="a copy made while it was stopped, between rounds or in one, put back between rounds or in one",
        holds="nothing of the lost rounds counts; devices come back to the restored model; rounds go on",
        inject=restored,
        expects=SAYS,
        short_seeds=(0,),
    ),
    Row(
        number=25,
        fault="after a restore, what was said in the lost round is said again in the round of its number",
        how="recorder at the broker: offers, chunks, Hellos, commands; a device still holds its update of the lost one",
        holds="not one update of the lost round counts; the round counts everybody",
        inject=said_again,
        expects=SAYS,
        short_seeds=(1,),
    ),
)
