"""A device that speaks the protocol and keeps to none of its promises; nothing of `device` is in it."""

import time
from collections.abc import Callable, Sequence
from typing import Self

import numpy as np

from broker.connection import Connection, Session
from common import plan as plans
from common.chunks import ChunkHasher, Layout, encode_head, from_wire, indexes
from common.config import BrokerConfig, SigningConfig, convert
from common.epochs import next_epoch
from common.errors import PeerError
from common.messages import (
    CheckIn,
    Chunk,
    CoordinatorStatus,
    DeviceStatus,
    Failed,
    Hello,
    Invite,
    Offer,
    Receipt,
    Ref,
    Refusal,
    Result,
    RoundStatus,
    Say,
    Want,
    decode,
    decode_story,
    encode,
    unsigned,
)
from common.signing import Signer
from common.topics import Kind, topic
from common.weights import Spec
from coordinator.rehearsal.federation import FEDERATION
from tests.faults.arena import Arena, NotSurvivedError
from tests.faults.passing import message_in

ANSWER_S = 30.0
AGAIN_S = 0.1
FLOOD_WINDOW = 200


class Hostile:
    """Speaks as `device`, whose own process is frozen meanwhile, straight to the broker; it has that device's keys."""

    def __init__(self, arena: Arena, device: str) -> None:
        self.device = device
        self._examples = arena.examples[device]
        self._connection = Connection(BrokerConfig(port=arena.port), Session("hostile", "5"))
        keys = convert(arena.signing[device], SigningConfig, device) if arena.signing else None
        self._signer = Signer(keys, next_epoch(arena.folder / device / "epoch") if keys else 0)
        self._blobs: dict[str, tuple[Layout, bytes, bytes]] = {}
        self._generation = "0"
        self._epoch = "0"
        """The coordinator's: who signs is not heard before it has named it."""
        self._nonce = ""
        """The frozen process's, so that it is not told of another."""

    def __enter__(self) -> Self:
        self._connection.__enter__()
        self._connection.subscribe(self._topic(Kind.DEV_CMD))
        self._connection.subscribe(self._topic(Kind.COORD_STATUS))
        self._connection.subscribe(self._topic(Kind.COORD_ROUND))
        self._connection.subscribe(self._topic(Kind.DEV_STATUS))
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def join(self, number: int) -> Invite:
        """Take part in a round; returns the invitation."""
        answer = self._until(
            lambda a: isinstance(a, Invite) and a.round == number,
            lambda: CheckIn(device=self.device, round=number, generation=self._generation),
        )
        assert isinstance(answer, Invite), "that is what was waited for"
        return answer

    def offer(self, invite: Invite, body: bytes, spec: Spec) -> Offer:
        """Offer an update in the place of an honest one; its chunks are there."""
        return Offer(
            device=self.device,
            round=invite.round,
            generation=invite.generation,
            plan=plans.digest(invite.plan),
            update=self._keep(body, spec, plans.read(invite.plan).base.chunk_bytes),
            num_examples=self._examples,
        )

    def deliver(self, offer: Offer) -> Receipt | Refusal | Result:
        """Say an offer and serve what is wanted of it, until it is answered."""
        answer = self._until(
            lambda a: isinstance(a, Receipt | Refusal | Result) and a.round == offer.round, lambda: offer
        )
        assert isinstance(answer, Receipt | Refusal | Result), "that is what was waited for"
        return answer

    def flood(self, kind: Kind, payloads: Sequence[bytes]) -> None:
        """Publish all of these on a topic of the device."""
        self._connection.publish_all(self._topic(kind), payloads, FLOOD_WINDOW, ANSWER_S)

    def seal(self, payload: bytes) -> bytes:
        """Sign what is to travel on `say`, if this federation signs."""
        return self._signer.wire(self._topic(Kind.DEV_SAY), payload)

    @property
    def generation(self) -> str:
        """That of the round which the coordinator told last."""
        return self._generation

    def give_up(self, number: int) -> None:
        """Let the round go on without this device."""
        self.say(Failed(device=self.device, round=number, generation=self._generation, reason="gives up"))

    def say(self, message: Say) -> None:
        """Say what anybody may make up."""
        self._connection.publish(self._topic(Kind.DEV_SAY), self.seal(encode(message)))

    def _until(self, is_it: Callable[[object], bool], make: Callable[[], Say]) -> object:
        """Say a message again and again, and serve chunks, until an answer comes. Raises NotSurvivedError."""
        end, again = time.monotonic() + ANSWER_S, 0.0
        while (now := time.monotonic()) < end:
            message = make()
            if now >= again:
                again = now + AGAIN_S * (1 if isinstance(message, CheckIn) else 20)
                if isinstance(message, CheckIn) and self._nonce:
                    self.say(Hello(device=self.device, nonce=self._nonce, epoch=self._epoch))
                self.say(message)
            if (heard := self._connection.receive(AGAIN_S)) is None:
                continue
            if heard.topic == self._topic(Kind.COORD_ROUND):
                self._generation = decode_story(unsigned(heard.payload)[0], RoundStatus).generation
                continue
            if heard.topic == self._topic(Kind.COORD_STATUS):
                self._epoch = decode_story(unsigned(heard.payload)[0], CoordinatorStatus).epoch
                continue
            if heard.topic == self._topic(Kind.DEV_STATUS):
                self._nonce = decode_story(unsigned(heard.payload)[0], DeviceStatus).nonce
                continue
            answer = message_in(heard.topic, heard.payload)
            if is_it(answer):
                return answer
            if isinstance(answer, Want):
                self._serve(answer)
        raise NotSurvivedError(f"nobody answered {type(make()).__name__} of {self.device} within {ANSWER_S:g} s")

    def _keep(self, body: bytes, spec: Spec, chunk_bytes: int) -> Ref:
        hasher = ChunkHasher(chunk_bytes)
        hasher.update(body)
        packed, ref = encode_head(hasher.head(spec))
        self._blobs[ref.id] = (Layout(ref.head_bytes, ref.size, ref.chunk_bytes), packed, body)
        return ref

    def _serve(self, want: Want) -> None:
        if want.blob not in self._blobs:
            return
        layout, packed, body = self._blobs[want.blob]
        for index in indexes(from_wire(want.chunks, layout.total)):
            offset, length = layout.span(index)
            source = packed if index < layout.head_chunks else body
            data = source[offset : offset + length]
            self._connection.send(self._topic(Kind.DEV_UP), encode(Chunk(blob=want.blob, index=index, data=data)))

    def _topic(self, kind: Kind) -> str:
        return topic(kind, FEDERATION, device=self.device)


def bombs() -> list[bytes]:
    """Return msgpack and JSON that ask for much more than they are."""
    huge = (2**32 - 1).to_bytes(4, "big")
    deep = [b"\x91" * 500_000, b"\x81\xa1a" * 300_000, b"[" * 500_000, b'{"a":' * 100_000]
    claims = [kind + huge for kind in (b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9")]
    wide = [b"\xdd\x00\x0f\xff\xff" + b"\xc0" * 0xFFFFF, b"\xde\xff\xff" + b"\x00\xc0" * 0xFFFF]
    tagged = [b"\x82\xa4type\xa5Offer\xa7metrics" + claim for claim in claims]
    return [*deep, *claims, *wide, *tagged, b"", b"\xc1", bytes(500_000)]


def is_message(payload: bytes) -> bool:
    """Whether these bytes are something that a device may say."""
    try:
        decode(payload, Say)
    except PeerError:
        return False
    return True


def with_nan(body: bytes, at: int) -> bytes:
    """Return a body of float32 numbers with one that is none."""
    values = np.frombuffer(body, "<f4").copy()
    values[at % values.size] = np.nan
    return values.tobytes()


def scaled(body: bytes, factor: float) -> bytes:
    """Return a body of float32 numbers, each times `factor`."""
    return (np.frombuffer(body, "<f4") * np.float32(factor)).astype("<f4").tobytes()
