"""The serving process: answers images over MQTT with the release that is installed.

`fedpi-device serve` runs it as a service of its own; `python -m device.serving` is the daemon's child.
The loop's thread owns the interpreter. A new release is loaded beside the old one and takes its place
between two requests, so none goes unanswered.
"""

import contextlib
import hashlib
import logging
import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec

from common.command import set_up_logging
from common.epochs import next_epoch
from common.errors import DataError, FedpiError, WorkError
from common.inbox import Inbox
from common.journal import tags
from common.limits import PACKET_MOST
from common.link import Broken, Denied, Down, Link, Received, Up
from common.messages import Prediction, StoryEvent, clip, encode_story
from common.notify import Pulse
from common.signing import Signer
from common.stopping import Stop, stop_on
from common.topics import SERVED_VERSIONS, STORY_ROOT, WIRE_ROOT, Kind, of_version, topic
from common.verified import read_verified
from device.config import DeviceConfig
from device.inference import Classifier
from device.store import CurrentRelease, current_release, good_release, hold, keep_good

log = logging.getLogger("device.serving")  # also where this module is the program

POLL_S = 0.25
WAITING_BYTES = 2**25
"""Bytes of requests that may wait, besides two images of the largest size."""
REQUEST_ROOM_BYTES = 2**18
"""Room in a packet around an image of the largest size: for response topic and correlation data of 64 KiB each, and
for the answer that an image is a little too large."""
DRAIN_S = 2.0
LOG_EVERY_S = 1.0
NOT_YET = "no release is installed here yet"
FOREIGN_ANSWER = "the response topic is one of fedpi's own or not a topic to publish on; name another"


class Shelf:
    """The release on disk as a classifier that is ready. A broken one leaves the earlier one in its place."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder = folder
        self._threads = threads
        self._seen: tuple[CurrentRelease, int] | None = None
        self.classifier: Classifier | None = None
        self.reason = NOT_YET
        """Why there is no classifier."""

    @property
    def state(self) -> str:
        """What is served, for people."""
        return f"release {self.classifier.release} is served" if self.classifier else self.reason

    def look(self) -> tuple[str, str] | None:
        """Load what is new on disk; returns the event and the sentence that tell people of it."""
        release = current_release(self._folder)
        written_at = _written_at(self._folder / release.file) if release else None
        if release is None or written_at is None or self._seen == (release, written_at):
            return None
        self._seen = (release, written_at)
        try:
            self.classifier = self._load(release)
        except FedpiError as error:
            return "release-refused", self._fall_back(release, error)
        with contextlib.suppress(WorkError):  # a full disk: the next start has nothing to fall back on, no more
            keep_good(self._folder, release)
        return "release-served", f"release {release.release} is served from now on."

    def _load(self, release: CurrentRelease) -> Classifier:
        path = self._folder / release.file
        try:
            content = read_verified(path)
        except DataError:
            with contextlib.suppress(OSError):  # as a part, so that the daemon fetches what is damaged in it
                path.replace(path.with_suffix(".part"))
            raise
        return Classifier(release.release, content, release.labels, self._threads)

    def _fall_back(self, refused: CurrentRelease, error: FedpiError) -> str:
        """Serve the last release that worked, unless one is served already; returns the whole sentence."""
        good = good_release(self._folder)
        if self.classifier is None and good is not None and good != refused:
            with contextlib.suppress(FedpiError):
                self.classifier = self._load(good)
        self.reason = str(error)
        still = f"release {self.classifier.release} is served still" if self.classifier else "no release is served"
        return f"release {refused.release} cannot be served, {still}: {error}"


class Serving:
    """One serving process over a device's state folder."""

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config
        self._inbox = Inbox(limit_bytes=WAITING_BYTES + 2 * config.serving.max_image_bytes)
        self._dropped = 0
        self._signer = Signer(config.signing, next_epoch(config.folder / "serving-epoch") if config.signing else 0)
        name = f"fedpi-{config.federation}-serve-{config.device}-{secrets.token_hex(4)}"
        self._link = Link("serving", name, config.broker, self._inbox)
        self._is_up = False
        self._news: StoryEvent | None = None
        infer, prediction = self._topic(Kind.DEV_INFER), self._topic(Kind.DEV_PREDICTION)
        self._answered_on = {of_version(each, infer): of_version(each, prediction) for each in SERVED_VERSIONS}
        """By the topic of a request, that of its answer."""
        self._shelf = Shelf(config.folder, config.serving.threads)
        self._look_at = 0.0
        self._log_at = 0.0

    def serve(self, stop: Stop) -> None:
        """Serve until `stop` is set."""
        pulse = Pulse()
        self._look(time.monotonic())
        self._link.start(max(self._config.serving.max_image_bytes + REQUEST_ROOM_BYTES, PACKET_MOST))
        try:
            while not stop.is_set():
                self._on(self._inbox.get(POLL_S))
                if (now := time.monotonic()) >= self._look_at:
                    self._look(now)
                pulse.beat(now, self._shelf.state)
        finally:
            pulse.stopping()
            self._link.drain(DRAIN_S)
            self._link.stop()

    def _on(self, event: object) -> None:
        match event:
            case Received():
                self._answer(event)
            case Up(limits=limits):
                log.info("link=serving up mqtt=%s packet_bytes=%s", limits.protocol, limits.packet_bytes)
                self._is_up = True
                for name in self._answered_on:
                    self._link.subscribe(name)
                self._tell()
            case Down(reason=reason):
                log.warning("link=serving down: %s", reason)
                self._is_up = False
            case Denied(topic=name, reason=reason):
                if (now := time.monotonic()) >= self._log_at:
                    self._log_at = now + LOG_EVERY_S
                    log.error("link=serving topic=%s %s", name[:200], reason)
            case Broken(error=error):
                raise error

    def _look(self, now: float) -> None:
        self._look_at = now + POLL_S
        if self._inbox.dropped != self._dropped:
            self._dropped = self._inbox.dropped
            log.warning("dropped=%d requests, more came than could wait", self._dropped)
        if (news := self._shelf.look()) is not None:
            event, text = news
            device, level = self._config.device, logging.INFO if event == "release-served" else logging.ERROR
            log.log(level, "%s", text, extra=tags(event, device=device))
            self._news = StoryEvent(event=event, device=device, text=clip(f"{device}: {text}"))
            self._tell()

    def _tell(self) -> None:
        if self._is_up and self._news is not None:
            name = self._topic(Kind.DEV_EVENT)
            self._link.publish(name, self._signer.story(name, encode_story(self._news)))
            self._news = None

    # ---- requests ---------------------------------------------------------------------------

    def _answer(self, request: Received) -> None:
        if (own := self._answered_on.get(request.topic)) is None:
            return  # a broker that delivers what nobody subscribed to
        if request.is_retained:  # it would be answered again after every connect, to whom nobody knows
            log.warning("request=%s is a retained message, which is ignored", name_of(request.payload))
            return
        wanted = own if request.response_topic is None else request.response_topic
        if may_answer_on(wanted, own):
            answer = self._predict(request.payload)
        else:
            wanted, answer = own, self._refusal(request.payload, FOREIGN_ANSWER)
        log.debug("request=%s ok=%s %s", answer.request, answer.ok, answer.text)
        signed = self._signer.story(wanted, encode_story(answer))
        self._link.publish(wanted, signed, correlation=request.correlation)

    def _predict(self, image: bytes) -> Prediction:
        classifier, limit = self._shelf.classifier, self._config.serving.max_image_bytes
        if classifier is None:
            return self._refusal(image, self._shelf.reason)
        if len(image) > limit:
            return self._refusal(image, f"the image has {len(image)} bytes; serving.max_image_bytes allows {limit}")
        try:
            outcome = classifier.classify(image)
        except DataError as error:
            return self._refusal(image, f"the image cannot be classified: {error}")
        except Exception:  # a bug, or memory that ran out: the next request may do better
            log.exception("request=%s failed", name_of(image))
            return self._refusal(image, "the image cannot be classified: the device's log says why")
        found = f"{outcome.label} (probability of {classifier.positive}: {outcome.probability:.3f})"
        return Prediction(
            device=self._config.device,
            request=name_of(image),
            ok=True,
            label=outcome.label,
            probability=outcome.probability,
            release=classifier.release,
            milliseconds=round(outcome.milliseconds, 3),
            text=f"{found}, by release {classifier.release} in {outcome.milliseconds:.1f} ms.",
        )

    def _refusal(self, image: bytes, reason: str) -> Prediction:
        return Prediction(
            device=self._config.device,
            request=name_of(image),
            ok=False,
            release=self._shelf.classifier.release if self._shelf.classifier else "",
            text=clip(reason),
        )

    def _topic(self, kind: Kind) -> str:
        return topic(kind, self._config.federation, device=self._config.device)


def may_answer_on(name: str, own: str) -> bool:
    """Whether a requester may have its answer on the topic `name`: never below fedpi's roots, save on `own`.

    We may write where the requester may not, so it must not choose among our own topics.
    """
    if name == own:
        return True
    is_ordinary = bool(name) and not name.startswith("$") and not set(name) & set("+#\0")
    return is_ordinary and name.partition("/")[0] not in {STORY_ROOT, WIRE_ROOT}


def name_of(image: bytes) -> str:
    """Name a request by its image: the first 16 digits of its SHA-256."""
    return hashlib.sha256(image).hexdigest()[:16]


def serve(config: DeviceConfig, stop: Stop) -> None:
    """Serve until `stop` is set. Raises ConfigError while another process serves from the same state folder."""
    with hold(config.folder / "serving.lock", "another process serves the release"):
        Serving(config).serve(stop)


def main() -> None:
    """Serve for the daemon: the first line of stdin is the configuration, its end is the end of the daemon."""
    set_up_logging(is_verbose=False)
    stop = stop_on(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the daemon too, which ends us in order
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=DeviceConfig)

    def wait_for_the_end() -> None:
        while os.read(sys.stdin.fileno(), 1):  # unbuffered: a buffer's lock, held here, would abort our exit
            pass
        stop.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    try:
        serve(config, stop)
    except FedpiError as error:
        log.error("%s", error)  # noqa: TRY400 - an expected error is one sentence
        sys.exit(error.exit_code)


def _written_at(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


if __name__ == "__main__":
    main()
