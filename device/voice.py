"""Everything that the device says: its two connections, its topics, its transfers."""

import logging
import secrets
from collections import deque
from typing import Literal

from common import plan as plans
from common import skipped
from common.epochs import next_epoch
from common.errors import ConfigError
from common.health import Health
from common.inbox import Inbox
from common.journal import tags
from common.limits import Limits
from common.link import Link, Will
from common.messages import (
    Accept,
    Bye,
    CheckIn,
    Decline,
    DeviceStatus,
    Failed,
    Hello,
    Offer,
    ReleaseStatus,
    Story,
    StoryEvent,
    Takeover,
    Want,
    clip,
    encode,
    encode_story,
)
from common.signing import Signer
from common.tls import CertificateWatch
from common.topics import Kind, topic
from device.config import DeviceConfig
from device.downloads import Downloads
from device.jobs import Failure, Loaded, Progress
from device.store import DeviceStore, current_release
from device.uploads import Upload

log = logging.getLogger(__name__)

NONCES = 64
"""How many connections back a Hello is still known: as our own, or as another process's."""


class Voice:
    """The device's side of the wire. Two connections, so that bulk cannot delay messages or the will."""

    def __init__(self, config: DeviceConfig, store: DeviceStore, inbox: Inbox) -> None:
        self.refused = 0
        self.epoch = "0"
        """The coordinator's, as last heard."""
        self._device = config.device
        self._abilities = plans.abilities(config.models)
        self._federation = config.federation
        self._max_skipped_share = config.data.max_skipped_share
        self._nonce = ""
        self._nonces: deque[str] = deque(maxlen=NONCES)
        self._rivals: deque[str] = deque(maxlen=NONCES)
        self._is_replaced = False
        release = current_release(config.folder)
        self.release = release.release if release else ""
        self.doing = ""
        self.left_out = ""
        """What the data holds that cannot be used, as a sentence."""
        self.health: Health | None = None
        self._signer = Signer(config.signing, next_epoch(config.folder / "epoch") if config.signing else 0)
        self._certificate = CertificateWatch(config.broker.tls)
        # Nobody can take over a connection whose name nobody knows.
        name, own = f"fedpi-{config.federation}-dev-{config.device}", secrets.token_hex(4)
        self._control = Link("control", f"{name}-control-{own}", config.broker, inbox, will=self._new_will)
        self._bulk = Link("bulk", f"{name}-bulk-{own}", config.broker, inbox)
        self.downloads = Downloads(config.device, config.federation, config.transfer, store.models, self._bulk)
        self.upload = Upload(config.device, config.federation, store.updates, self._bulk)

    @property
    def limits(self) -> Limits:
        """What the bulk connection may carry."""
        return self._bulk.limits

    def start(self) -> None:
        """Connect."""
        self._control.start()
        self._bulk.start()

    def stop(self) -> None:
        """Say goodbye and disconnect."""
        if not self._is_replaced:  # else the device is still there: another process speaks for it
            self.say(Bye(device=self._device, nonce=self._nonce))
            status = self._status("offline", "", "The device stopped.")
            self._tell(Kind.DEV_STATUS, status, retain=True)
        self._control.drain(2.0)
        self._control.stop()
        self._bulk.stop()

    def came_up(self, link: str, doing: str) -> None:
        """Subscribe to what the connection `link`, new again, is for, and say that the device is here."""
        if link == "bulk":
            self.upload.forget()
            self.downloads.listen()
            return
        for kind in (Kind.COORD_STATUS, Kind.COORD_ROUND, Kind.COORD_RELEASE, Kind.DEV_CMD):
            self._control.subscribe(self._topic(kind))
        self.hello()
        self.status(doing)

    def hello(self) -> None:
        """Tell the coordinator that the device is here."""
        self.say(Hello(device=self._device, nonce=self._nonce, epoch=self.epoch, abilities=self._abilities))

    def stand_back(self, takeover: Takeover) -> None:
        """Answer that another connection has this device's name; raises ConfigError where this process must end.

        One of our own that is heard of late, and a process that is long dead, do not insist: a Hello sets them right.
        Whoever lives says Hello, too, and the older process hears of it for the second time first: the newer one wins.
        """
        if takeover.nonce != self._nonce:
            return
        self._is_replaced = takeover.by in self._rivals
        if self._is_replaced:
            text = f"another process speaks as {self._device}, so this one ends; stop one of the two, or rename it"
            self._event("replaced", 0, text)
            raise ConfigError(text)
        if takeover.by not in self._nonces:
            self._rivals.append(takeover.by)
            log.warning("another process speaks as %s, or has just ended", self._device)
        self.hello()

    def say(self, message: Hello | Bye | CheckIn | Accept | Decline | Failed | Offer | Want) -> None:
        """Send a message to the coordinator."""
        name = self._topic(Kind.DEV_SAY)
        self._control.publish(name, self._signer.wire(name, encode(message)))

    def ask(self, now: float) -> None:
        """Ask for what the downloads need."""
        for want in self.downloads.wishes(now):
            self.say(want)

    def status(self, doing: str) -> None:
        """Tell people what the device does."""
        self.doing = doing
        text = clip(" ".join(filter(None, (f"{self._device} is {doing}.", self._certificate.warning(), self.left_out))))
        self._tell(Kind.DEV_STATUS, self._status("online", doing, text), retain=True)

    def progress(self, progress: Loaded | Progress) -> None:
        """Tell people how far the training is."""
        if isinstance(progress, Loaded):
            self._loaded(progress)
            return
        text = f"{self._device} has trained {progress.epoch} of {progress.epochs} epochs of round {progress.round}."
        fraction = progress.epoch / max(progress.epochs, 1)
        self._event("training", progress.round, text, fraction=fraction, metrics=progress.metrics)

    def failed(self, failure: Failure) -> None:
        """Tell people that a training failed."""
        self._event("training-failed", failure.round, failure.reason)

    def installed(self, release: ReleaseStatus) -> None:
        """Tell people which release is the one to serve from now on."""
        self.release = release.release
        self._event("release-installed", release.round, f"{self._device} has release {release.release}.")
        self.status(self.doing)

    def serving_ended(self, text: str) -> None:
        """Tell people that the serving process ended by itself."""
        self._event("serving-ended", 0, text)

    def _loaded(self, loaded: Loaded) -> None:
        """Tell people what the data holds that cannot be used, when it is another than before."""
        told = skipped.sentence(loaded.usable, loaded.skipped, loaded.first, self._max_skipped_share)
        if told == self.left_out:
            return
        self.left_out = told
        self.status(self.doing)
        for sentence in loaded.first:
            log.warning("left out %s", sentence)
        if told:
            log.warning("%s; fedpi-device check names all", told, extra=tags("files-left-out"))

    def _new_will(self) -> Will:
        """Draw the nonce of the next connection, so that a late will of an earlier one is known by its own."""
        self._nonce = secrets.token_hex(4)
        self._nonces.append(self._nonce)
        name, status = self._topic(Kind.DEV_STATUS), self._status("offline", "", "The connection broke.")
        return Will(name, self._signer.will(name, encode_story(status)))

    def _event(self, event: str, round_: int, text: str, **more: object) -> None:
        story = StoryEvent(event=event, round=round_, device=self._device, text=clip(text), **more)  # type: ignore[arg-type]
        self._tell(Kind.DEV_EVENT, story)

    def _status(self, state: Literal["online", "offline"], doing: str, text: str) -> DeviceStatus:
        return DeviceStatus(
            device=self._device,
            nonce=self._nonce,
            state=state,
            doing=doing,
            release=self.release,
            refused=self.refused,
            text=text,
            health=self.health if state == "online" else None,
        )

    def _tell(self, kind: Kind, document: Story, *, retain: bool = False) -> None:
        name = self._topic(kind)
        self._control.publish(name, self._signer.story(name, encode_story(document)), retain=retain)

    def _topic(self, kind: Kind) -> str:
        return topic(kind, self._federation, device=self._device)
