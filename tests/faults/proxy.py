"""A TCP proxy between a federation and its broker that breaks things on request, in a thread of its own.

Parties connect to `port`; a connection is told by its MQTT client id. All methods may be called from any
thread and take effect before they return.
"""

import asyncio
import contextlib
import math
import random
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from common.topics import Kind
from tests.faults import packets
from tests.faults.passing import Cut, Match, Meddler, Passing, Tally, Watch, Way, whose

HOST = "127.0.0.1"
READ_BYTES = 2**16
QUEUE_PACKETS = 64
"""What a line holds beside the kernel's buffers; whoever sends more waits."""
PIECE_BYTES = 1460
RESET = struct.pack("ii", 1, 0)
T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """How a party's line is: delay and its variation each way, and bytes a second each way, all links together."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = math.inf


@dataclass(eq=False)
class _Session:
    """A connection of a party, and the one to the broker that stands for it."""

    client_id: str
    is_v5: bool
    readers: dict[Way, asyncio.StreamReader]
    writers: dict[Way, asyncio.StreamWriter]
    queues: dict[Way, asyncio.Queue[tuple[float, bytes] | None]] = field(default_factory=dict)
    is_up: bool = False
    is_abandoned: bool = False
    has_stated: bool = False  # the coordinator, on it, that it is here

    @property
    def party(self) -> str:
        return whose(self.client_id)[0]

    @property
    def link(self) -> str:
        return whose(self.client_id)[1]


class Proxy:
    """Carries connections from its own `port` to the broker's, faithfully unless told otherwise."""

    def __init__(self, broker_port: int, port: int, seed: int = 0) -> None:
        self.port = port
        self.broker_port = broker_port
        self.tally = Tally()
        self.resets = 0
        self._rng = random.Random(seed)
        self._watches: list[Watch] = []
        self._meddler: Meddler | None = None
        self._lines: dict[str, Line] = {}
        self._free_at: dict[tuple[str, Way], float] = defaultdict(float)
        self._lifted: dict[str, asyncio.Event] = {}
        self._sessions: list[_Session] = []
        self._renamed = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._do(self._listen())

    def stop(self) -> None:
        """Break everything and end, if it was started."""
        if not self._thread.is_alive():
            return
        self.reset()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    # ---- looking on ---------------------------------------------------------------------------

    def watch(self, match: Match, nth: int = 1) -> Watch:
        """Wait for a PUBLISH from now on: `watch(...).came.wait(seconds)`."""
        self._watches.append(watch := Watch(match, nth))
        return watch

    def connected(self) -> set[tuple[str, str]]:
        """Return party and link of every connection that the broker has accepted and that lives."""
        return {(s.party, s.link) for s in list(self._sessions) if s.is_up and not s.is_abandoned}

    def is_served(self) -> bool:
        """Whether a coordinator that lives has said so on its connection: before, it looks for another one."""
        return any(s.has_stated and s.is_up and not s.is_abandoned for s in list(self._sessions))

    # ---- faults -------------------------------------------------------------------------------

    def cut(self, match: Match, nth: int, share: float) -> Cut:
        """Reset a connection inside the `nth` PUBLISH that matches, after `share` of its bytes."""
        self._watches.append(cut := Cut(match, nth, share=share))
        return cut

    def reset(self, party: str | None = None, link: str | None = None) -> None:
        """Reset the connections of a party (of all), or one link of it."""
        self._do(self._reset(party, link))

    def hole(self, party: str) -> None:
        """Let nothing pass on any connection of `party`, and end none: what is sent waits. New ones fare the same."""
        self._do(self._hole(party))

    def lift(self, party: str) -> None:
        """End the black hole: what was sent meanwhile arrives, unless its sender has closed the connection unused."""
        self._do(self._lift(party))

    def line(self, party: str, line: Line) -> None:
        """Give a party another line."""
        self._lines[party] = line

    def meddle(self, meddler: Meddler | None) -> None:
        """Let `meddler` decide what becomes of every PUBLISH; it is called in the proxy's thread, and must not wait."""
        self._meddler = meddler

    def abandon(self, party: str, link: str) -> None:
        """Cut a party off a connection while the broker keeps it, and its next one, as two clients.

        As in a cluster of brokers that has not noticed yet: no takeover. `bury` ends the old one, and its will comes.
        """
        self._do(self._abandon(party, link))

    def bury(self) -> None:
        """End the abandoned connections, without a DISCONNECT."""
        self._do(self._bury())

    def clear(self) -> None:
        """Be faithful again: forget lines, holes, cuts, watches and meddling, and bury what was abandoned."""
        self._do(self._clear())

    # ---- inside: the proxy's own thread ---------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.set_exception_handler(lambda *_: None)  # Python 3.11 complains of what is cancelled below
        for task in (tasks := asyncio.all_tasks(self._loop)):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

    async def _listen(self) -> None:
        await asyncio.start_server(self._serve, HOST, self.port)

    async def _reset(self, party: str | None, link: str | None) -> None:
        for session in list(self._sessions):
            if party in {None, session.party} and link in {None, session.link}:
                self._break(session)

    async def _hole(self, party: str) -> None:
        self._lifted.setdefault(party, asyncio.Event())

    async def _lift(self, party: str) -> None:
        if (event := self._lifted.pop(party, None)) is not None:
            event.set()

    async def _abandon(self, party: str, link: str) -> None:
        for session in self._sessions:
            if (session.party, session.link) == (party, link) and not session.is_abandoned:
                session.is_abandoned = True
                _abort(session.writers[Way.DOWN])

    async def _bury(self) -> None:
        for session in [s for s in self._sessions if s.is_abandoned]:
            session.writers[Way.UP].close()

    async def _clear(self) -> None:
        self._watches.clear()
        self._meddler = None
        self._lines.clear()
        for party in list(self._lifted):
            await self._lift(party)
        await self._bury()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection from its CONNECT to its end."""
        with contextlib.suppress(OSError, EOFError):
            framer = packets.Framer()
            while not (first := framer.feed(await _some(reader))):
                pass
            party = whose(packets.client_id(first[0]))[0]
            if not await self._may_pass(party, reader):
                return
            back_reader, back_writer = await asyncio.open_connection(HOST, self.broker_port)
            session = _Session(
                packets.client_id(first[0]),
                packets.speaks_v5(first[0]),
                {Way.UP: reader, Way.DOWN: back_reader},
                {Way.UP: back_writer, Way.DOWN: writer},
            )
            self._sessions.append(session)
            back_writer.write(self._introduce(session, first[0]))
            try:
                await asyncio.gather(self._carry(session, Way.UP), self._carry(session, Way.DOWN))
            finally:
                self._sessions.remove(session)
        _abort(writer)

    async def _may_pass(self, party: str, reader: asyncio.StreamReader) -> bool:
        """Wait for the end of a black hole; returns whether the client is still there then."""
        while (lifted := self._lifted.get(party)) is not None:
            gone = asyncio.ensure_future(reader.read(1))
            end = asyncio.ensure_future(lifted.wait())
            done, waiting = await asyncio.wait({gone, end}, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            if gone in done:
                return False
        return True

    def _introduce(self, session: _Session, connect: bytes) -> bytes:
        """Return the CONNECT to send: under another name while an abandoned connection has this one."""
        if not any(s.is_abandoned and s.client_id == session.client_id for s in self._sessions):
            return connect
        self._renamed += 1
        return packets.with_client_id(connect, f"{session.client_id}-again{self._renamed}")

    async def _carry(self, session: _Session, way: Way) -> None:
        """Carry one direction until either end is gone."""
        queue = session.queues[way] = asyncio.Queue(QUEUE_PACKETS)
        pump = asyncio.ensure_future(self._pump(session, way))
        try:
            while (item := await queue.get()) is not None:
                due, packet = item
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                await self._pass(session, way, packet)
            while (lifted := self._lifted.get(session.party)) is not None:
                await lifted.wait()
        except OSError:
            pass  # the other end is gone
        finally:
            pump.cancel()
            if not (session.is_abandoned and way is Way.UP):
                session.is_up = False
                session.writers[way].close()
                if session.is_abandoned:
                    session.writers[Way.UP].close()

    async def _pump(self, session: _Session, way: Way) -> None:
        """Read packets and note when each would arrive."""
        framer, due, queue = packets.Framer(), 0.0, session.queues[way]
        with contextlib.suppress(OSError):
            while data := await session.readers[way].read(READ_BYTES):
                line = self._lines.get(session.party, Line())
                delay = line.latency_s + self._rng.uniform(-line.jitter_s, line.jitter_s)
                due = max(due, time.monotonic() + delay)
                for packet in framer.feed(data):
                    await queue.put((due, packet))
        await queue.put(None)

    async def _pass(self, session: _Session, way: Way, packet: bytes) -> None:
        while (lifted := self._lifted.get(session.party)) is not None:
            await lifted.wait()
        if session.is_abandoned and way is Way.DOWN:
            return
        what = packets.kind(packet)
        if what == packets.CONNACK:
            session.is_up = packets.is_accepted(packet)
        if what != packets.PUBLISH:
            await self._write(session, way, packet)
            return
        publish = packets.parse_publish(packet, is_v5=session.is_v5)
        passing = Passing(session.party, session.link, way, publish)
        session.has_stated |= way is Way.UP and passing.kind is Kind.COORD_STATUS
        self.tally.count(passing)
        for watch in list(self._watches):
            if watch.look(passing) and isinstance(watch, Cut):
                await self._cut(session, way, packet, watch)
                return
        await self._forward(session, passing, packet)

    async def _forward(self, session: _Session, passing: Passing, packet: bytes) -> None:
        fate = [(0.0, packet)] if self._meddler is None else self._meddler(passing, packet)
        for hold_s, copy in fate:
            if hold_s > 0:
                self._loop.call_later(hold_s, self._write_late, session, passing.way, copy)
            else:
                await self._write(session, passing.way, copy)
        if not fate and passing.publish.packet_id:
            sender = session.writers[Way.DOWN if passing.way is Way.UP else Way.UP]
            sender.write(packets.puback(passing.publish.packet_id))

    def _write_late(self, session: _Session, way: Way, packet: bytes) -> None:
        if not session.writers[way].is_closing():
            session.writers[way].write(packet)

    async def _cut(self, session: _Session, way: Way, packet: bytes, cut: Cut) -> None:
        session.writers[way].write(packet[: 1 + int(cut.share * (len(packet) - 1))])
        await asyncio.sleep(0.005)  # so that the piece is out before the reset takes what is not
        self._break(session)

    async def _write(self, session: _Session, way: Way, packet: bytes) -> None:
        writer, rate = session.writers[way], self._lines.get(session.party, Line()).bytes_per_s
        if math.isinf(rate):
            writer.write(packet)
        else:
            for start in range(0, len(packet), PIECE_BYTES):
                piece = packet[start : start + PIECE_BYTES]
                key = (session.party, way)
                begin = max(time.monotonic(), self._free_at[key])
                self._free_at[key] = begin + len(piece) / rate
                await asyncio.sleep(self._free_at[key] - time.monotonic())
                writer.write(piece)
        await writer.drain()

    def _break(self, session: _Session) -> None:
        self.resets += 1
        session.is_up = False
        for writer in session.writers.values():
            _abort(writer)


async def _some(reader: asyncio.StreamReader) -> bytes:
    if data := await reader.read(READ_BYTES):
        return data
    raise EOFError


def _abort(writer: asyncio.StreamWriter) -> None:
    """Send a reset instead of a FIN."""
    line = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
