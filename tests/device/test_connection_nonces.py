"""Every control connection has a nonce of its own, so that the late will of an earlier one is known as such."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.inbox import Inbox
from common.link import Will
from common.messages import DeviceStatus, Hello, decode, decode_story
from device import voice
from device.config import DeviceConfig
from device.store import DeviceStore


class RecordingLink:
    """A link that goes nowhere."""

    def __init__(self, name: str, *_: object, will: Callable[[], Will] | None = None) -> None:
        self.will = will
        self.said: list[bytes] = []
        links[name] = self

    def publish(self, _topic: str, payload: bytes, **_: Any) -> None:
        self.said.append(payload)


links: dict[str, RecordingLink] = {}


def test_each_connection_has_a_will_of_its_own_and_says_hello_with_its_nonce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voice, "Link", RecordingLink)
    config = DeviceConfig(federation="clinic", device="pi", state=str(tmp_path))
    speaker = voice.Voice(config, DeviceStore(tmp_path), Inbox())
    control = links["control"]
    assert control.will is not None
    nonces = []
    for _ in range(2):
        will = decode_story(control.will().payload, DeviceStatus)
        speaker.hello()
        assert will.state == "offline"
        assert decode(control.said[-1], Hello).nonce == will.nonce
        nonces.append(will.nonce)
    assert nonces[0] != nonces[1]
