"""The device's loop: it carries events to the session and its commands to the world.

All state belongs to the thread that calls `serve`. TensorFlow never enters this process.
"""

import logging
import time
from typing import TypeVar

from msgspec import structs

from common import plan as plans
from common import topics
from common.bundle import COORDINATOR
from common.errors import DiskFullError, FedpiError, PeerError
from common.health import Health
from common.inbox import Inbox
from common.journal import tags
from common.link import Broken, Denied, Down, Received, Room, Subscribed, Up
from common.messages import (
    Chunk,
    Command,
    CoordinatorStatus,
    Invite,
    Receipt,
    Ref,
    Refusal,
    ReleaseStatus,
    Result,
    RoundStatus,
    Takeover,
    Want,
    decode,
    decode_story,
)
from common.notify import Pulse
from common.plan import RoundPlan
from common.signing import Verifier
from common.stopping import Stop
from common.topics import Kind
from device import session as sessions
from device import session_events as events
from device.config import DeviceConfig
from device.fitness import unfitness
from device.health import HealthWatch
from device.jobs import Done, Failure, Job, Loaded, Progress, TrainingProcess
from device.packing import pack_update
from device.serving_child import ServingChild
from device.session import Session, Stage, Waits
from device.session_events import CancelJob, DropUpdate, Event, Fetch, Speak, StartJob
from device.store import DeviceStore
from device.voice import Voice

log = logging.getLogger(__name__)
Document = TypeVar("Document")

TICK_S = 0.1
NEWS_S = 0.5
"""How often a status that changes is told: a stage that is over before is not worth a message."""
LOG_EVERY_S = 1.0


class Daemon:
    """One running device over its state folder."""

    def __init__(self, config: DeviceConfig, store: DeviceStore) -> None:
        self._config = config
        self._store = store
        self._inbox = Inbox(config.transfer.inbox_bytes)
        self._pulse = Pulse()
        self._voice = Voice(config, store, self._inbox)
        self._verifier = Verifier(config.signing, config.folder / "heard.json")
        self._trainer = TrainingProcess(config.trainer, self._inbox.put)
        self._serving = ServingChild(config)
        self._health = HealthWatch(config.folder, self._inbox.put, config.health.period_s)
        self._ailment = ""
        waits = Waits(**structs.asdict(config.session))
        self._session = Session(config.device, waits=waits, labels=config.data.label_names)
        self._release: ReleaseStatus | None = None
        self._next_heartbeat = self._next_news = self._next_tick = self._log_at = 0.0

    def serve(self, stop: Stop) -> None:
        """Serve until `stop` is set. Raises WorkError when the disk fails."""
        self._store.recover()
        offer = self._store.offer()
        self._session = sessions.resume(self._session, offer, time.monotonic())
        self._voice.upload.offer(offer.update if offer else None)
        self._voice.start()
        self._health.start()
        try:
            while not stop.is_set():
                event = self._inbox.get(TICK_S)
                now = time.monotonic()
                self._voice.downloads.excuse(self._inbox.missed_s(now))
                if event is not None:
                    self._on(event, now)
                self._voice.upload.publish()
                if now >= self._next_tick:
                    self._next_tick = now + TICK_S
                    self._tick(now)
        finally:
            self._pulse.stopping()
            self._health.stop()
            self._serving.stop()
            self._trainer.stop()
            self._voice.stop()

    def _tick(self, now: float) -> None:
        self._pulse.beat(now, self._session.doing)
        self._trainer.tick(now)
        self._step(events.Tick(), now)
        self._fetched(self._voice.downloads.retry(now), now)
        self._judge(now)
        self._voice.ask(now)
        if (ended := self._serving.tick(now)) is not None:
            self._voice.serving_ended(ended)
        if self._session.doing != self._voice.doing and now >= self._next_news:
            self._next_news = now + NEWS_S
            self._voice.status(self._session.doing)
        if now >= self._next_heartbeat:
            self._next_heartbeat = now + self._config.broker.heartbeat_s
            self._voice.status(self._session.doing)
            for ref in self._needed():  # one that a failing disk kept out gets another chance
                self._fetch(ref, now)

    def _on(self, event: object, now: float) -> None:
        match event:
            case Received():
                try:
                    self._receive(event, now)
                except PeerError as error:
                    self._refuse(event.topic, error, now)
            case Room():
                self._voice.upload.publish()
            case Loaded() | Progress():
                self._voice.progress(event)
            case Health():
                self._examine(event, now)
            case Done() | Failure():
                if self._trainer.settle(event, now):
                    self._trained(event, now)
            case _:
                self._on_link(event, now)

    def _on_link(self, event: object, now: float) -> None:
        """Take note of what became of a connection."""
        match event:
            case Up(link=link, limits=limits):
                log.info("link=%s up %s", link, limits.text)
                self._voice.came_up(link, self._session.doing)
                self._step(events.Reconnected(), now)
            case Subscribed(topic=name):
                self._voice.downloads.granted(name)
                self._voice.ask(now)
            case Down(link=link, reason=reason):
                log.warning("link=%s down: %s", link, reason)
            case Denied(link=link, topic=name, reason=reason):
                log.error("link=%s topic=%s %s", link, name, reason)
            case Broken(error=error):
                raise error

    def _examine(self, health: Health, now: float) -> None:
        """Let the device sit rounds out while it is unfit; a warm trainer gives its memory back, which may be all."""
        self._store.look()
        self._ailment = unfitness(health, self._config.health, self._ailment)
        self._voice.health = health
        if self._ailment and not self._trainer.is_busy:
            self._trainer.stop()
        self._judge(now)

    def _judge(self, now: float) -> None:
        """Sit rounds out as well while the disk takes no data, and say so."""
        reason, health = self._ailment or self._store.trouble or self._voice.downloads.trouble, self._voice.health
        if health is not None and health.unfit != reason:
            self._voice.health = structs.replace(health, unfit=reason)
        if reason != self._session.unfitness:
            self._step(events.Examined(reason), now)

    # ---- what arrives -----------------------------------------------------------------------

    def _receive(self, message: Received, now: float) -> None:
        address = topics.parse(message.topic)
        if address.federation != self._config.federation:
            raise PeerError(f"federation {address.federation!r} is not ours")
        match address.kind:
            case Kind.BLOB:
                self._fetched(self._voice.downloads.take(decode(message.payload, Chunk), now), now)
                self._voice.ask(now)
            case Kind.DEV_CMD:
                self._obey(decode(self._verifier.wire(message.topic, message.payload, COORDINATOR), Command), now)
            case Kind.COORD_STATUS:
                self._greet(self._read(message, CoordinatorStatus), now)
            case Kind.COORD_ROUND:
                self._step(events.Pointed(self._read(message, RoundStatus)), now)
            case Kind.COORD_RELEASE:
                self._follow(self._read(message, ReleaseStatus), now)
            case _:
                raise PeerError(f"nobody speaks to a device on a {address.kind.value} topic")

    def _read(self, message: Received, kind: type[Document]) -> Document:
        return decode_story(self._verifier.story(message.topic, message.payload, COORDINATOR), kind)

    def _obey(self, command: Invite | Want | Receipt | Refusal | Result | Takeover, now: float) -> None:
        if command.device != self._config.device:
            raise PeerError(f"a command for {command.device} came to {self._config.device}")
        match command:
            case Invite():
                self._invited(command, now)
            case Want():
                if self._voice.upload.ask(command):
                    self._step(events.Wanted(command.blob), now)
                    self._voice.upload.publish()
            case Takeover():
                self._voice.stand_back(command)
            case Receipt():
                self._step(events.Receipted(command.round, command.generation), now)
            case Refusal(round=number, reason=reason):
                log.warning("round=%d refused: %s", number, reason)
                self._step(events.WasRefused(number, command.generation, reason), now)
            case Result(round=number):
                log.info("round=%d counted=%s %s", number, command.counted, command.reason)
                self._step(events.WasResolved(command), now)

    def _invited(self, invite: Invite, now: float) -> None:
        """Read the plan of an invitation; its digest will be in the offer."""
        plan = plans.read(invite.plan)
        if (plan.round, plan.generation) != (invite.round, invite.generation):
            raise PeerError(f"the invitation to round {invite.round} holds the plan of round {plan.round}")
        self._step(events.Invited(plan, plans.digest(invite.plan)), now)

    def _greet(self, status: CoordinatorStatus, now: float) -> None:
        """Say hello to a coordinator that started anew, and again what the one before has not answered."""
        if status.state == "online" and status.epoch != self._voice.epoch:
            self._voice.epoch = status.epoch
            self._voice.hello()
            self._step(events.Reconnected(), now)

    def _follow(self, status: ReleaseStatus, now: float) -> None:
        self._release = status
        self._fetch(status.model, now)

    def _refuse(self, name: str, error: PeerError, now: float) -> None:
        self._voice.refused += 1
        if now >= self._log_at:
            self._log_at = now + LOG_EVERY_S
            log.warning("refused=%d topic=%s %s", self._voice.refused, name[:200], error)

    # ---- the session's commands -------------------------------------------------------------

    def _step(self, event: Event, now: float) -> None:
        before = self._session
        self._session, commands = sessions.step(before, event, now)
        if self._session.doing != before.doing:
            log.info("now %s", self._session.doing)
        for command in commands:
            self._execute(command, now)

    def _execute(self, command: events.Command, now: float) -> None:
        match command:
            case Speak(message=message):
                if command.is_repeat:
                    self._voice.hello()
                self._voice.say(message)
            case Fetch(ref=ref):
                self._fetch(ref, now)
            case StartJob(plan=plan):
                self._train(plan, now)
            case CancelJob():
                if self._trainer.is_busy:
                    self._trainer.stop()
            case DropUpdate():
                self._voice.upload.offer(None)
                self._store.drop_update()

    def _fetch(self, ref: Ref, now: float) -> None:
        self._voice.downloads.only({needed.id for needed in self._needed()} | {ref.id})
        try:
            is_here = self._voice.downloads.begin(ref, now)
        except FedpiError as error:  # a failing disk, or a ref that breaks the limits
            log.warning("cannot fetch blob %s: %s", ref.id[:8], error)
            return
        self._fetched(ref.id if is_here else None, now)

    def _fetched(self, blob: str | None, now: float) -> None:
        if blob is None:
            return
        if self._release is not None and self._release.model.id == blob:
            self._install(self._release)
        self._store.keep_models({needed.id for needed in self._needed()} | {blob})
        self._step(events.Fetched(blob), now)

    def _install(self, release: ReleaseStatus) -> None:
        if self._store.has_installed(release):
            return
        try:
            self._store.install(release)
        except DiskFullError as error:  # the next heartbeat tries again
            log.warning("release=%s not installed, the one before serves on: %s", release.release, error)
            return
        self._voice.installed(release)

    def _train(self, plan: RoundPlan, now: float) -> None:
        models = self._store.models
        job = Job(
            round=plan.round,
            device=self._config.device,
            plan=plan,
            base=str(models.body(plan.base.id)),
            head=str(models.head_path(plan.base.id)),
            out=str(self._store.begin_draft()),
            personal=str(self._store.folder / "personal"),
            data=self._config.data,
            models=self._config.models,
            python_path=self._config.python_path,
        )
        self._trainer.start(job, now)

    def _trained(self, outcome: Done | Failure, now: float) -> None:
        task = self._session.task
        if task is None or task.plan is None or task.round != outcome.round or task.stage is not Stage.TRAINING:
            return
        if isinstance(outcome, Failure):
            extra = tags("training-failed", device=self._config.device)
            log.error("round=%d training failed: %s", outcome.round, outcome.reason, extra=extra)
            self._voice.failed(outcome)
            self._step(events.TrainingFailed(outcome.round, outcome.reason), now)
            return
        try:
            offer = pack_update(self._store, self._config.device, task, outcome, self._voice.limits)
        except FedpiError as error:
            self._step(events.TrainingFailed(outcome.round, str(error)), now)
            return
        self._voice.upload.offer(offer.update)
        self._step(events.Trained(offer), now)

    # ---- models on disk ---------------------------------------------------------------------

    def _needed(self) -> list[Ref]:
        pointer, task = self._session.pointer, self._session.task
        refs = [
            pointer.model if pointer else None,
            task.plan.base if task and task.plan else None,
            self._release.model if self._release else None,
        ]
        return [ref for ref in refs if ref is not None]
