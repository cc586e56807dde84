"""Everything that the device says: its two connections, its topics, its transfers."""

import secrets
from collections.abc import Callable
from typing import Literal

from common.link import Limits, Link, Will
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
    StoryEvent,
    Want,
    clip,
    encode,
    encode_story,
)
from common.topics import Kind, topic
from device.config import DeviceConfig
from device.downloads import Downloads
from device.jobs import Failure, Progress
from device.store import DeviceStore, current_release
from device.uploads import Upload


class Voice:
    """The device's side of the wire. Two connections, so that bulk cannot delay messages or the will."""

    def __init__(self, config: DeviceConfig, store: DeviceStore, deliver: Callable[[object], None]) -> None:
        self.refused = 0
        self._device = config.device
        self._federation = config.federation
        self._nonce = secrets.token_hex(4)
        release = current_release(config.folder)
        self.release = release.release if release else ""
        self.doing = ""
        will = Will(self._topic(Kind.DEV_STATUS), encode_story(self._status("offline", "", "The connection broke.")))
        name = f"fedpi-{config.federation}-dev-{config.device}"
        self._control = Link("control", f"{name}-control", config.broker, deliver, will=will)
        self._bulk = Link("bulk", f"{name}-bulk", config.broker, deliver)
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
        self.say(Bye(device=self._device, nonce=self._nonce))
        status = self._status("offline", "", "The device stopped.")
        self._control.publish(self._topic(Kind.DEV_STATUS), encode_story(status), retain=True)
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
        self.say(Hello(device=self._device, nonce=self._nonce))

    def say(self, message: Hello | Bye | CheckIn | Accept | Decline | Failed | Offer | Want) -> None:
        """Send a message to the coordinator."""
        self._control.publish(self._topic(Kind.DEV_SAY), encode(message))

    def ask(self, now: float) -> None:
        """Ask for what the downloads need."""
        for want in self.downloads.wishes(now):
            self.say(want)

    def status(self, doing: str) -> None:
        """Tell people what the device does."""
        self.doing = doing
        status = self._status("online", doing, f"{self._device} is {doing}.")
        self._control.publish(self._topic(Kind.DEV_STATUS), encode_story(status), retain=True)

    def progress(self, progress: Progress) -> None:
        """Tell people how far the training is."""
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

    def _event(self, event: str, round_: int, text: str, **more: object) -> None:
        story = StoryEvent(event=event, round=round_, device=self._device, text=clip(text), **more)  # type: ignore[arg-type]
        self._control.publish(self._topic(Kind.DEV_EVENT), encode_story(story))

    def _status(self, state: Literal["online", "offline"], doing: str, text: str) -> DeviceStatus:
        return DeviceStatus(
            device=self._device,
            nonce=self._nonce,
            state=state,
            doing=doing,
            release=self.release,
            refused=self.refused,
            text=text,
        )

    def _topic(self, kind: Kind) -> str:
        return topic(kind, self._federation, device=self._device)
