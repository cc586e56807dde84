"""Row 21: a device that takes part and means harm."""

import random
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from common.messages import Failed, Refusal, Result, encode
from common.topics import Kind
from common.weights import Spec, TensorSpec
from tests.faults import hostile, oracle
from tests.faults.arena import DEVICES, Arena, NotSurvivedError, Setup, Trial
from tests.faults.hostile import Hostile
from tests.faults.passing import COORDINATOR
from tests.faults.row import Outcome, Row

BOUNDED = Setup(round=(("max_update_norm", 1000.0),))
"""An honest update of this model has the norm sqrt(800000 / 12) = 258."""
OFFERS = 10_000
SEALED_BYTES = 2**18
"""What a signed envelope holds at most."""
GROWTH_MB = 60.0
"""What the coordinator may take beside its peak so far; a model of 3.2 MB and its digests lie in it several times."""


@dataclass(frozen=True)
class Attack:
    """A round under attack."""

    arena: Arena
    trial: Trial
    foe: Hostile
    rng: random.Random
    before: dict[Path, int]

    @property
    def last(self) -> int:
        """Number of the last round of the trial."""
        return self.trial.first + self.trial.rounds - 1

    @property
    def spec(self) -> Spec:
        """The model's tensors."""
        return oracle.learner_of(self.arena.plan(1).model).spec()

    def honest(self, number: int) -> bytes:
        """Return what the device would have to deliver."""
        arena, device = self.arena, self.foe.device
        return oracle.update(arena.model(), arena.plan(number), device, arena.examples[device])

    def is_refused(self, answer: object, words: str) -> None:
        """Raise NotSurvivedError unless the update was refused with these words, to the device and in the ledger."""
        if not isinstance(answer, Refusal) or not re.search(words, answer.reason):
            raise NotSurvivedError(f"{self.foe.device} was told {answer}, and not {words!r}")

    def until_logged(self, words: str, harm: Callable[[], None]) -> None:
        """Do harm until the coordinator, which logs one refusal a second, has logged these words."""

        def is_told() -> bool:
            harm()
            return bool(re.search(words, self.arena.logged(COORDINATOR, self.before)))

        self.arena.until(is_told, f"the coordinator to log {words!r}", 20.0)


def replay(attack: Attack) -> str:
    """Deliver in one round, and the very same in the next one: as it was, and under the new round's number."""
    foe, first = attack.foe, attack.trial.first
    offer = foe.offer(foe.join(first), attack.honest(first), attack.spec)
    foe.deliver(offer)
    foe.join(attack.last)
    answer = foe.deliver(offer)
    if not isinstance(answer, Result) or not answer.counted:
        raise NotSurvivedError(f"{foe.device} was told {answer}, and not what became of its update in round {first}")
    answer = foe.deliver(replace(offer, round=attack.last))
    attack.is_refused(answer, r"trained by plan .*, the round's is")
    return "the update was trained by plan"


def another_name(attack: Attack) -> str:
    """Say that another device has failed, on one's own topic and within the message."""
    victim = attack.rng.choice([device for device in DEVICES if device != attack.foe.device])
    attack.foe.join(attack.last)
    lie = Failed(device=victim, round=attack.last, generation=attack.foe.generation, reason="a lie")
    attack.until_logged(f"{attack.foe.device} speaks as {victim}", lambda: attack.foe.say(lie))
    attack.foe.give_up(attack.last)
    return "gives up"


def not_a_number(attack: Attack) -> str:
    """Deliver one NaN among good numbers."""
    invite = attack.foe.join(attack.last)
    body = hostile.with_nan(attack.honest(attack.last), attack.rng.randrange(2**30))
    words = "not finite"
    attack.is_refused(attack.foe.deliver(attack.foe.offer(invite, body, attack.spec)), words)
    return words


def wrong_shape(attack: Attack) -> str:
    """Deliver as many numbers in tensors of other shapes."""
    invite = attack.foe.join(attack.last)
    size = sum(tensor.nbytes for tensor in attack.spec) // 4
    spec = (TensorSpec(attack.spec[0].name, (size,), "float32"),)
    words = "tensor"
    attack.is_refused(attack.foe.deliver(attack.foe.offer(invite, attack.honest(attack.last), spec)), words)
    return words


def hundredfold(attack: Attack) -> str:
    """Deliver a hundred times what was trained."""
    invite = attack.foe.join(attack.last)
    body = hostile.scaled(attack.honest(attack.last), 100.0)
    words = "the update's norm is .* at most 1000 is admitted"
    attack.is_refused(attack.foe.deliver(attack.foe.offer(invite, body, attack.spec)), words)
    return words


def many_offers(attack: Attack) -> str:
    """Offer 10,000 different updates of which there is none."""
    invite, foe = attack.foe.join(attack.last), attack.foe
    offer = foe.offer(invite, attack.honest(attack.last), attack.spec)
    ids = (f"{attack.rng.getrandbits(256):064x}" for _ in range(OFFERS))
    offers = (replace(offer, update=replace(offer.update, id=name)) for name in ids)
    foe.flood(Kind.DEV_SAY, [foe.seal(encode(offer)) for offer in offers])
    return "different updates in one round are too many"


def bombs(attack: Attack) -> str:
    """Send msgpack and JSON that ask for much more memory than they are, everywhere."""
    attack.foe.join(attack.last)
    payloads = hostile.bombs()
    assert not any(map(hostile.is_message, payloads))
    for kind in (Kind.DEV_SAY, Kind.DEV_UP, Kind.DEV_STATUS):
        words = rf"topic=\S+{kind.value[3:]} (not a valid|{attack.foe.device} does not sign)"
        attack.until_logged(words, lambda k=kind: attack.foe.flood(k, payloads))  # type: ignore[misc]
    if attack.arena.signing:
        small = [payload for payload in payloads if len(payload) <= SEALED_BYTES]
        attack.until_logged(
            r"topic=\S+say not a valid", lambda: attack.foe.flood(Kind.DEV_SAY, [attack.foe.seal(p) for p in small])
        )
    attack.foe.give_up(attack.last)
    return "gives up"


ATTACKS: tuple[Callable[[Attack], str], ...] = (
    replay,
    another_name,
    not_a_number,
    wrong_shape,
    hundredfold,
    many_offers,
    bombs,
)


def hostile_device(arena: Arena, rng: random.Random) -> Outcome:
    """Freeze a device and speak in its place, each of `ATTACKS` in turn."""
    attack, device = ATTACKS[arena.seed % len(ATTACKS)], rng.choice(DEVICES)
    peak, before = arena.processes[COORDINATOR].peak_mb(), arena.log_sizes()
    arena.processes[device].send(signal.SIGSTOP)
    try:
        with Hostile(arena, device) as foe:
            trial = arena.open(rounds=2 if attack is replay else 1)
            words = attack(Attack(arena, trial, foe, rng, before))
            ended = time.time()
            closed = trial.finish(must_count=set(DEVICES) - {device})
    finally:
        _wake(arena, device)
    if attack is many_offers:
        arena.proxy.reset(device)  # what it has missed behind thousands of refusals it is told anew
    last = trial.first + trial.rounds - 1
    said = {row.device: f"{row.standing}: {row.reason}" for row in arena.store.ledger(last)}
    if not re.search(words, said[device]):
        raise NotSurvivedError(f"the ledger says of {device} {said[device]!r}, not {words!r}")
    grown = arena.processes[COORDINATOR].peak_mb() - peak
    if grown > GROWTH_MB:
        raise NotSurvivedError(f"the coordinator took {grown:.0f} MB more")
    note = f"{attack.__name__.replace('_', ' ')}: {said[device]}; {grown:.0f} MB"
    return Outcome(max(closed - ended, 0.0), arena.proxy.tally.resent_bytes, note)


def _wake(arena: Arena, device: str) -> None:
    """Let the honest process go on; where it signs, whoever had its keys has said more than it, so it begins anew."""
    if arena.signing:
        arena.processes.pop(device).kill()
        arena.start_device(device)
    else:
        arena.processes[device].send(signal.SIGCONT)


ROWS = (
    Row(
        number=21,
        fault="hostile device: replay of an old round's update, another device's id in the payload, NaN, wrong shape,"
        " 100 x norm, 10,000 offers, msgpack bombs",
        how="fake peer",
        holds="refused by name, memory bounded, round right",
        inject=hostile_device,
        setup=BOUNDED,
        expects=(
            r"round=\d+ refused: ",  # the frozen device reads them when it wakes
            r"exceeds its budget of (messages|offers): ",
        ),
        short_seeds=(0, 5),
    ),
)
