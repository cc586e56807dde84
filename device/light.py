"""Many light devices in one process, so that a machine is busy with the coordinator that it measures.

Each is fedpi's own session (`device.session`) and its own receiver (`common.transfer`) over one bare connection; it
keeps nothing on a disk, and its training takes no time. `python -m device.light FEDERATION PORT COUNT`
"""

import selectors
import sys
import time
from dataclasses import dataclass

import numpy as np

from common import plan as plans
from common.chunks import ChunkHasher, encode_head, from_wire, full, indexes, layout_of, to_wire
from common.messages import (
    Chunk,
    Command,
    CoordinatorStatus,
    DeviceStatus,
    Hello,
    Invite,
    Offer,
    Receipt,
    Ref,
    Refusal,
    Result,
    RoundStatus,
    Want,
    decode,
    decode_story,
    encode,
    encode_story,
)
from common.plan import RoundPlan
from common.topics import Kind, parse, topic
from common.transfer import HeadKnown, Patience, Receiver, Stored, adopt, on_chunk, receive, wish
from common.weights import Spec, nbytes
from device import session as sessions
from device import session_events as events
from device.light_client import LightClient
from device.session import Session
from device.session_events import Event, Fetch, Speak, StartJob

TICK_S = 0.25
WINDOW = 500
PATIENCE = Patience()


@dataclass
class _Download:
    """A model on its way; `needs`: how many subscriptions are granted once its topic is."""

    receiver: Receiver
    needs: int


class LightDevice:
    """One device: a session, a model, an update."""

    def __init__(self, federation: str, port: int, number: int) -> None:
        self._number = number
        self._name = f"light-{number}"
        self._federation = federation
        self._session = Session(self._name)
        self._epoch = "0"
        self._held: dict[str, Spec] = {}
        self._download: _Download | None = None
        self._update: tuple[Ref, bytes, bytes] | None = None
        self.client = LightClient(port, f"fedpi-{federation}-{self._name}")
        names = [self._topic(kind) for kind in (Kind.COORD_STATUS, Kind.COORD_ROUND, Kind.DEV_CMD)]
        self._subscribed = len(names)
        self.client.subscribe(names)
        status = DeviceStatus(device=self._name, nonce=f"{number:08x}", state="online")
        self.client.publish(self._topic(Kind.DEV_STATUS), encode_story(status), retain=True)

    def tick(self, now: float) -> None:
        """Do what time demands."""
        self._step(events.Tick(), now)
        self._ask(now)

    def read(self, now: float) -> None:
        """Take what arrived."""
        for name, payload in self.client.read():
            match parse(name).kind:
                case Kind.BLOB:
                    self._take(decode(payload, Chunk), now)
                case Kind.DEV_CMD:
                    self._obey(decode(payload, Command), now)
                case Kind.COORD_STATUS:
                    self._greet(decode_story(payload, CoordinatorStatus))
                case Kind.COORD_ROUND:
                    self._step(events.Pointed(decode_story(payload, RoundStatus)), now)
        self._ask(now)

    def _greet(self, status: CoordinatorStatus) -> None:
        if status.epoch != self._epoch:
            self._epoch = status.epoch
            self._say(Hello(device=self._name, nonce=f"{self._number:08x}", epoch=self._epoch))

    def _obey(self, command: object, now: float) -> None:
        match command:
            case Invite(plan=packed):
                self._step(events.Invited(plans.read(packed), plans.digest(packed)), now)
            case Want(blob=blob) if self._update is not None and self._update[0].id == blob:
                self._step(events.Wanted(blob), now)
                self._send(command, *self._update)
            case Receipt():
                self._step(events.Receipted(command.round, command.generation), now)
            case Refusal():
                self._step(events.WasRefused(command.round, command.generation, command.reason), now)
            case Result():
                self._step(events.WasResolved(command), now)

    def _step(self, event: Event, now: float) -> None:
        self._session, commands = sessions.step(self._session, event, now)
        for command in commands:
            match command:
                case Speak(message=message):
                    self._say(message)
                case Fetch(ref=ref):
                    self._fetch(ref, now)
                case StartJob(plan=plan, digest=digest):
                    self._step(events.Trained(self._train(plan, digest)), now)

    def _train(self, plan: RoundPlan, digest: str) -> Offer:
        """Draw an update of the model's shape, another one each round."""
        spec = self._held[plan.base.id]
        rng = np.random.Generator(np.random.PCG64([self._number, plan.round]))
        body = rng.standard_normal(nbytes(spec) // 4, np.float32).tobytes()
        hasher = ChunkHasher(plan.base.chunk_bytes)
        hasher.update(body)
        packed, ref = encode_head(hasher.head(spec))
        self._update = ref, packed, body
        return Offer(
            device=self._name,
            round=plan.round,
            generation=plan.generation,
            plan=digest,
            update=ref,
            num_examples=10,
        )

    # ---- the model comes, the update goes ---------------------------------------------------

    def _fetch(self, ref: Ref, now: float) -> None:
        if ref.id in self._held:
            self._step(events.Fetched(ref.id), now)
        elif self._download is None or self._download.receiver.ref.id != ref.id:
            self._subscribed += 1
            self.client.subscribe([topic(Kind.BLOB, self._federation, blob=ref.id)], qos=0)
            self._download = _Download(receive(ref, PATIENCE, now), self._subscribed)

    def _ask(self, now: float) -> None:
        download = self._download
        if download is None or self.client.granted < download.needs:
            return
        download.receiver, bits = wish(download.receiver, WINDOW, now)
        if bits:
            self._say(Want(device=self._name, blob=download.receiver.ref.id, chunks=to_wire(bits)))

    def _take(self, chunk: Chunk, now: float) -> None:
        download = self._download
        if download is None or chunk.blob != download.receiver.ref.id:
            return
        download.receiver, outcome = on_chunk(download.receiver, chunk, now)
        if isinstance(outcome, HeadKnown):
            download.receiver = adopt(download.receiver, outcome.head, 0)
        if isinstance(outcome, HeadKnown | Stored) and download.receiver.is_complete:
            head = download.receiver.head
            self._held = {chunk.blob: (head.spec if head else None) or ()}
            self._download = None
            self._step(events.Fetched(chunk.blob), now)

    def _send(self, want: Want, ref: Ref, packed: bytes, body: bytes) -> None:
        layout = layout_of(ref)
        for index in indexes(from_wire(want.chunks, layout.total) & full(layout.total)):
            offset, length = layout.span(index)
            data = (packed if index < layout.head_chunks else body)[offset : offset + length]
            self.client.publish(self._topic(Kind.DEV_UP), encode(Chunk(blob=ref.id, index=index, data=data)))

    def _say(self, message: Hello | Want | events.Said) -> None:
        self.client.publish(self._topic(Kind.DEV_SAY), encode(message))

    def _topic(self, kind: Kind) -> str:
        return topic(kind, self._federation, device=self._name)


def serve(federation: str, port: int, count: int) -> None:
    """Serve `count` devices until this process is ended."""
    poll = selectors.DefaultSelector()
    devices = [LightDevice(federation, port, number) for number in range(count)]
    for device in devices:
        poll.register(device.client, selectors.EVENT_READ, device)
    next_tick = 0.0
    while True:
        for key, ready in poll.select(TICK_S):
            device = key.data
            if ready & selectors.EVENT_WRITE:
                device.client.write()
            if ready & selectors.EVENT_READ:
                device.read(time.monotonic())
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if device.client.wants_write else 0)
            if wanted != key.events:
                poll.modify(device.client, wanted, device)
        if (now := time.monotonic()) >= next_tick:
            next_tick = now + TICK_S
            for device in devices:
                device.tick(now)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
