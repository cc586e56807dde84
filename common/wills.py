"""Which documents the broker publishes for a party whose connection broke."""

from common.messages import CoordinatorStatus, DeviceStatus, decode_story
from common.topics import Kind, parse

WILLS: dict[Kind, type[CoordinatorStatus] | type[DeviceStatus]] = {
    Kind.COORD_STATUS: CoordinatorStatus,
    Kind.DEV_STATUS: DeviceStatus,
}


def is_will(name: str, document: bytes) -> bool:
    """Whether `document` may be the will of the topic `name`; raises PeerError for what is no document of it."""
    kind = WILLS.get(parse(name).kind)
    return kind is not None and decode_story(document, kind).state == "offline"
