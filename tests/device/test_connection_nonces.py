"""Every control connection has a nonce of its own, so that the late will of an earlier one is known as such."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError
from common.inbox import Inbox
from common.link import Will
from common.messages import DeviceStatus, Hello, StoryEvent, Takeover, decode, decode_story
from device import voice
from device.config import DeviceConfig
from device.store import DeviceStore


class RecordingLink:
    """A link that goes nowhere."""

    def __init__(self, name: str, *_: object, will: Callable[[], Will] | None = None) -> None:
        self.will = will
        self.said: list[bytes] = []
        links[name] = self

    def drain(self, _timeout_s: float) -> None:
        pass

    def stop(self) -> None:
        pass

    def publish(self, _topic: str, payload: bytes, **_: Any) -> None:
        self.said.append(payload)


links: dict[str, RecordingLink] = {}


@pytest.fixture
def speaker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> voice.Voice:
    monkeypatch.setattr(voice, "Link", RecordingLink)
    config = DeviceConfig(federation="clinic", device="pi", state=str(tmp_path))
    return voice.Voice(config, DeviceStore(tmp_path), Inbox())


def connect() -> str:
    """Return the nonce of a new connection."""
    will = links["control"].will
    assert will is not None
    status = decode_story(will().payload, DeviceStatus)
    assert status.state == "offline"
    return status.nonce


def test_each_connection_has_a_will_of_its_own_and_says_hello_with_its_nonce(speaker: voice.Voice) -> None:
    nonces = []
    for _ in range(2):
        nonces.append(connect())
        speaker.hello()
        assert decode(links["control"].said[-1], Hello).nonce == nonces[-1]
    assert nonces[0] != nonces[1]


def test_who_is_replaced_twice_by_the_same_other_process_ends_and_leaves_the_device_to_it(speaker: voice.Voice) -> None:
    takeover, said = Takeover(device="pi", nonce=connect(), by="beef"), links["control"].said
    speaker.stand_back(takeover)
    assert decode(said[-1], Hello).nonce == takeover.nonce
    with pytest.raises(ConfigError, match="another process speaks as pi"):
        speaker.stand_back(takeover)
    assert decode_story(said[-1], StoryEvent).event == "replaced"
    before = len(said)
    speaker.stop()
    assert len(said) == before


def test_nobody_ends_for_a_late_word_of_an_own_connection_or_of_processes_that_do_not_insist(
    speaker: voice.Voice,
) -> None:
    old, new = connect(), connect()
    for by in (old, old, "beef", "cafe"):
        speaker.stand_back(Takeover(device="pi", nonce=new, by=by))
        assert decode(links["control"].said.pop(), Hello).nonce == new
    speaker.stand_back(Takeover(device="pi", nonce=old, by=new))
    assert links["control"].said == []
