"""Follows the federation's story over MQTT, without being heard."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from common.errors import LinkError, PeerError
from common.inbox import Inbox
from common.link import Broken, Denied, Down, Link, Received, Up
from common.topics import topic
from coordinator.config import WatchConfig
from coordinator.watching import DOCUMENTS, Picture, Watched, news, read, take

POLL_S = 0.25


@dataclass(frozen=True)
class Glimpse:
    """The picture now; what changed it, if anything did: a message and its topic, and a sentence for people."""

    picture: Picture
    topic: str = ""
    document: Watched | None = None
    sentence: str = ""


def spectate(config: WatchConfig, seconds: float | None) -> Iterator[Glimpse]:
    """Yield a glimpse a message, and one every POLL_S at least, for `seconds` or for ever.

    Raises LinkError at the end if the broker was never reached.
    """
    inbox, federation, broker = Inbox(), config.federation, config.broker
    link = Link("watch", f"fedpi-{federation}-watch-{secrets.token_hex(4)}", broker, inbox)
    glimpse, is_reached = Glimpse(Picture(federation)), False
    end = time.monotonic() + (float("inf") if seconds is None else seconds)
    link.start()
    try:
        while (left := end - time.monotonic()) > 0:
            event = inbox.get(min(POLL_S, left))
            if isinstance(event, Up):
                is_reached = True
                for kind in DOCUMENTS:
                    link.subscribe(topic(kind, federation, device="+"))
            glimpse = _see(glimpse.picture, event)
            yield glimpse
    finally:
        link.stop()
    if not is_reached:
        raise LinkError(f"the broker was not reached within {seconds:g} s: {glimpse.picture.connection}")


def _see(picture: Picture, event: object) -> Glimpse:
    match event:
        case Up():
            return _connection(picture, "connected")
        case Down(reason=reason):
            return _connection(picture, f"no connection to {reason}")
        case Denied(topic=name, reason=reason):
            return _connection(picture, f"{name}: {reason}")
        case Broken(error=error):
            raise error
        case Received(topic=name, payload=payload):
            try:
                document = read(name, payload, picture.federation)
            except PeerError:
                return Glimpse(replace(picture, malformed=picture.malformed + 1))
            return Glimpse(take(picture, document, time.time()), name, document, news(picture, document))
    return Glimpse(picture)


def _connection(picture: Picture, state: str) -> Glimpse:
    is_new = state != picture.connection
    return Glimpse(replace(picture, connection=state), sentence=f"Broker: {state}." if is_new else "")
