"""The coordinator's loop: it carries events to the state machines and their commands to the world.

All state belongs to the thread that calls `serve`. Every change is in the journal before it is said.
"""

import logging
import time

from common import topics
from common.blobs import BlobStore
from common.errors import DiskFullError, PeerError
from common.inbox import Inbox
from common.journal import tags
from common.link import Broken, Denied, Down, Received, Room, Up
from common.messages import Chunk, Ref, clip
from common.notify import Pulse
from common.stopping import Stop
from common.topics import Kind
from common.weights import Spec
from coordinator import records
from coordinator import round as rounds
from coordinator.aggregator import Aggregator, Outcome, contributions
from coordinator.budgets import MESSAGES, OFFERS, Budgets
from coordinator.collector import Collector
from coordinator.config import CoordinatorConfig
from coordinator.events import Aggregate, Announce, Cancelled, Collect, Command, Event, Offered, Tell, Tick
from coordinator.forgetting import Forgetting
from coordinator.onlookers import Onlookers
from coordinator.reception import Reception
from coordinator.rival_watch import ReplacedError, RivalWatch
from coordinator.round_state import OPEN, Phase, Round
from coordinator.stock import Stock
from coordinator.store import Run, Store
from coordinator.story import changes, sentence
from coordinator.voice import Voice

log = logging.getLogger(__name__)

TICK_S = 0.05
POLL_S = 0.25
NEWS_S = 1.0
"""How often a round that changes is told to everybody: every device reads it, so it must not be told for each."""


class Service:
    """One running coordinator over its store; the store holds a global model already."""

    def __init__(
        self, config: CoordinatorConfig, store: Store, blobs: BlobStore, pulse: Pulse, *, takes_over: bool = False
    ) -> None:
        """`takes_over`: whether another coordinator of the federation is to end for this one."""
        self._config = config
        self._store = store
        self._inbox = Inbox(config.transfer.inbox_bytes)
        self._pulse = pulse
        self._voice = Voice(config, self._inbox)
        self._rivals = RivalWatch(config, store, self._voice, takes_over=takes_over)
        self._stock = Stock(config, store, blobs, self._voice.distributor)
        self._collector = Collector(config.folder / "updates", config.transfer, config.round.max_update_norm)
        self._reception = Reception(config.federation, store, config.signing, self._voice.epoch)
        self._forgetting = Forgetting(store, self._reception, self._voice)
        self._budgets = Budgets()
        self._onlookers = Onlookers(config, store, self._collector, self._voice)
        self._aggregator = Aggregator(blobs, config.folder / "moments", self._inbox.put)
        self._round: Round | None = None
        self._run: Run | None = None
        self._bytes_up = 0
        self._next_poll = self._next_heartbeat = self._next_news = 0.0
        self._is_unsaved = self._is_untold = False

    def serve(self, stop: Stop) -> None:
        """Serve until `stop` is set. Raises WorkError when the disk fails, ReplacedError for another coordinator.

        When the disk is full, that is a DiskFullError: everything is closed then, and another Service can go on.
        """
        self._recover()
        self._voice.start()
        try:
            while not stop.is_set():
                event = self._inbox.get(TICK_S)
                now = time.monotonic()
                self._collector.excuse(missed_s := self._inbox.missed_s(now))
                self._rivals.excuse(missed_s)
                if event is not None:
                    self._on(event, now)
                self._tick(now)
        except (DiskFullError, ReplacedError) as error:
            self._close(clip(f"The coordinator waits for room: {error}"))
            raise
        self._pulse.stopping()
        self._close("The coordinator stopped.")

    def _close(self, goodbye: str) -> None:
        self._voice.stop(goodbye)
        self._aggregator.stop()
        self._collector.close()
        self._stock.close()

    def _recover(self) -> None:
        found = self._store.open_round()
        self._stock.check(found[0].base if found else None)
        self._offer_models()
        if found is None:
            return
        round_, run, (self._voice.published_bytes, self._bytes_up) = found
        self._run = self._store.run(run)
        log.info("resumed round=%d phase=%s", round_.number, round_.phase.value)
        if round_.plan.generation == records.EARLIER_GENERATION:
            self._round = round_
            self._step(Cancelled(reason=records.EARLIER_OPEN), time.monotonic())
            return
        is_here = self._collector.has_intact
        lost = frozenset(m.device for m in round_.reported if m.update and not is_here(m.device, m.update.id))
        self._enter(round_, *rounds.resume(round_, time.monotonic(), lost))

    def _on(self, event: object, now: float) -> None:
        match event:
            case Received():
                self._bytes_up += len(event.payload)
                try:
                    self._receive(event, now)
                except PeerError as error:
                    self._reception.refuse(event.topic, error)
            case Up():
                self._came_up(event, now)
            case Down(link=link, reason=reason):
                log.warning("link=%s down: %s", link, reason)
                self._rivals.disconnected(link)
            case Denied(link=link, topic=name, reason=reason):
                log.error("link=%s topic=%s %s", link, name, reason)
            case Room():
                self._voice.publish_chunks()
            case Outcome(round=number, event=done) if self._round and self._round.number == number:
                self._step(done, now)
            case Broken(error=error):
                raise error

    def _tick(self, now: float) -> None:
        self._voice.publish_chunks(self._reception.present, now)
        if now < self._next_poll:
            return
        self._next_poll = now + POLL_S
        self._look_for_rivals(now)
        for want in self._collector.wishes(now):
            self._voice.say(want)
        for told in self._budgets.to_name(now):
            log.warning("%s", told)
        for event in self._reception.revoked():
            self._apply(event, now)
        if self._round is not None and self._rivals.has_listened(now):
            self._step(Tick(), now)
        self._forgetting.look()
        self._store.tidy_log()
        self._poll_runs(now)
        self._offer_models()
        if self._round is None or self._round.phase is Phase.REPORTING:  # else a result may lie there, unknown
            self._stock.tidy(self._base, self._aggregator)  # while others work: an SD card takes its time
        self._write_down(now)
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + self._config.broker.heartbeat_s
            if not self._rivals.is_met:  # else devices would follow one and the other in turn
                self._say_again()
        self._pulse.beat(now, sentence(self._round) if self._round else "No round is open.")

    def _write_down(self, now: float) -> None:
        """Save and tell what no command waits for: who checked in, who has reported so far."""
        self._reception.flush()
        if self._is_untold and self._round is not None and now >= self._next_news:
            self._next_news = now + NEWS_S
            self._is_untold = False
            self._save(self._round)
            self._store.save_traffic(self._round.number, (self._voice.published_bytes, self._bytes_up))
            self._voice.round(self._round)

    def _receive(self, message: Received, now: float) -> None:
        address = topics.parse(message.topic)
        if address.kind is Kind.COORD_PEER:
            self._rivals.receive(message.payload, now)
            return
        arrival = self._reception.admit(address, message.payload, self._round.plan if self._round else None)
        if arrival.chunk is not None:
            self._take(address.device, arrival.chunk, now)
            return
        self._budgets.spend(address.device, MESSAGES, now)  # of what it says itself: others may flood its topics
        if arrival.is_offline:
            self._collector.offline(address.device)
        if arrival.want is not None:
            self._voice.distributor.gather(arrival.want, now, self._budgets)
            self._voice.publish_chunks(self._reception.present, now)
        if arrival.takeover is not None:
            self._voice.say(arrival.takeover)
        if arrival.late is not None:
            self._voice.say(arrival.late)
        if isinstance(arrival.event, Offered):
            self._budgets.spend(address.device, OFFERS, now)
        if arrival.event is not None:
            self._apply(arrival.event, now)

    def _take(self, device: str, chunk: Chunk, now: float) -> None:
        self._apply(self._collector.take(device, chunk, self._base_spec(), now), now)
        self._reception.heard(device)
        for want in self._collector.wishes(now, device):
            self._voice.say(want)

    def _came_up(self, event: Up, now: float) -> None:
        log.info("link=%s up %s", event.link, event.limits.text)
        self._rivals.connected(event.link, now)
        if self._rivals.may_speak:
            self._begin_to_hear(event.link)
        if event.link == "bulk":
            self._fit_model(event.limits.chunk_bytes(self._config.transfer.chunk_bytes))

    def _begin_to_hear(self, link: str) -> None:
        """Listen to the devices on a new connection, and say on it what is retained."""
        if link == "control":
            self._forgetting.begin_anew()
        self._voice.subscribe(link)
        if link == "control":
            self._say_again()

    def _look_for_rivals(self, now: float) -> None:
        could_speak = self._rivals.may_speak
        is_news = self._rivals.tick(now)
        if self._rivals.may_speak and not could_speak:
            self._round = self._round and rounds.wait_anew(self._round, now)
            for link in ("bulk", "control"):  # what is said on control draws answers on both
                self._begin_to_hear(link)
        elif is_news:
            self._announce()
            self._onlookers.everything()

    def _fit_model(self, chunk_bytes: int) -> None:
        """Cut the global model anew when this broker cannot carry its chunks."""
        if self._stock.model().chunk_bytes <= chunk_bytes:
            return
        if self._round is not None:
            self._step(Cancelled(reason=f"the broker only carries chunks of {chunk_bytes} bytes"), time.monotonic())
        self._stock.recut(chunk_bytes)
        self._offer_models()
        self._announce()

    # ---- rounds -----------------------------------------------------------------------------

    def _apply(self, event: Event | None, now: float) -> None:
        if event is not None and self._round is not None:
            self._step(event, now)

    def _step(self, event: Event, now: float) -> None:
        assert self._round is not None  # noqa: S101 - for the type checker; callers look first
        self._enter(self._round, *rounds.step(self._round, event, now))

    def _enter(self, before: Round | None, after: Round, commands: tuple[Command, ...]) -> None:
        self._round = after
        if after is not before:
            self._is_unsaved = self._is_untold = True
        if commands and self._is_unsaved:  # what the journal has already, a flood of questions need not save again
            self._save(after)
        stories = changes(before, after)
        for story in stories:
            log.info("%s", story.text, extra=tags(story.event, round=story.round, device=story.device))
            self._voice.event(story)
        self._onlookers.look(after, is_settled=bool(stories))
        for command in commands:
            self._execute(command)
        if after.phase not in {*OPEN, Phase.AGGREGATING}:
            self._finish(after)

    def _save(self, round_: Round) -> None:
        self._store.save(round_, self._run.run if self._run else 0, (self._voice.published_bytes, self._bytes_up))
        self._is_unsaved = False

    def _execute(self, command: Command) -> None:
        match command:
            case Announce():
                self._voice.round(self._round)
            case Tell(message=message):
                self._voice.say(message)
            case Collect(offer=offer):
                now = time.monotonic()
                self._apply(self._collector.begin(offer, self._base_spec(), now), now)
                for want in self._collector.wishes(now, offer.device):
                    self._voice.say(want)
            case Aggregate():
                assert self._round is not None  # noqa: S101 - only a round commands it
                self._aggregator.begin(self._round, contributions(self._round, self._collector.path))

    def _finish(self, round_: Round) -> None:
        event = "round-committed" if round_.phase is Phase.COMMITTED else "round-void"
        log.info("%s", sentence(round_), extra=tags(event, round=round_.number, phase=round_.phase.value))
        if round_.phase is Phase.COMMITTED:
            self._voice.metrics(round_)
        self._round = None
        self._collector.end_round({m.device for m in round_.members})
        self._offer_models()
        self._next_poll = 0.0

    def _poll_runs(self, now: float) -> None:
        """Begin the next round of the run that was asked for, or end it."""
        run = self._store.active_run()
        if run is None:
            return
        if self._round is not None:
            if run.state == "aborting":
                self._step(Cancelled(reason="the operator stopped it"), now)
            return
        if run.state in {"stopping", "aborting"}:
            self._store.end_run(run.run, "stopped")
        elif run.begun >= run.rounds:
            self._store.end_run(run.run, "done")
        elif self._rivals.may_open(now) and self._store.go_on(run.run):
            self._begin(run, now)

    def _begin(self, run: Run, now: float) -> None:
        self._run = run
        number = self._store.last_round() + 1
        self._voice.published_bytes = self._bytes_up = 0
        plan = self._config.plan(number, self._voice.epoch, self._stock.model())
        method = self._config.method(self._stock.moments(self._aggregator))
        log.info("round=%d opened run=%d generation=%s", number, run.run, plan.generation)
        self._enter(None, *rounds.begin(plan, self._config.round, method, now))

    # ---- models -----------------------------------------------------------------------------

    @property
    def _base(self) -> Ref | None:
        """The model that the open round trains on."""
        return self._round.base if self._round else None

    def _base_spec(self) -> Spec:
        """Return the tensors of the open round's base."""
        return self._stock.spec(self._base or self._stock.model())

    def _offer_models(self) -> None:
        """Hold ready what devices may ask for."""
        is_change = self._stock.offer(self._base)
        if is_change or self._voice.trouble != self._stock.trouble:
            self._voice.trouble = self._stock.trouble
            self._announce()

    def _announce(self) -> None:
        """Say where the federation stands, as far as that is new."""
        self._voice.refused = self._reception.refused
        self._voice.standing(self._round, self._store.last_round(), self._stock.model(), self._stock.release())

    def _say_again(self) -> None:
        """Say everything that is retained, as after a broker came back empty."""
        self._voice.again()
        self._announce()
        self._onlookers.everything()
