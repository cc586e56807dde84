"""What a device's data holds that cannot be used reaches its log, its status and the operator's notices."""

import logging
from pathlib import Path
from typing import Any

import pytest

from common import skipped
from common.config import DataConfig
from common.inbox import Inbox
from common.messages import DeviceStatus, encode_story
from common.topics import Kind
from coordinator.attention import Notice, attention
from coordinator.watching import Picture, take
from device import voice
from device.config import DeviceConfig
from device.jobs import Loaded
from device.store import DeviceStore

HTML = "yes/scan1.jpg: it is an HTML page"


class Speaker(voice.Voice):
    """Keeps what it tells people."""

    def __init__(self, folder: Path) -> None:
        data = DataConfig(max_skipped_share=0.25)
        config = DeviceConfig(federation="clinic", device="pi", state=str(folder), data=data)
        super().__init__(config, DeviceStore(folder), Inbox())
        self.told: list[DeviceStatus] = []

    def _tell(self, kind: Kind, document: Any, *, retain: bool = False) -> None:
        assert (kind, retain) == (Kind.DEV_STATUS, True)
        encode_story(document)
        self.told.append(document)


def notices(status: DeviceStatus) -> list[tuple[Notice, str]]:
    return [(found.notice, found.text) for found in attention(take(Picture("clinic"), status, 0.0))]


def test_many_files_left_out_are_told_in_log_and_status_and_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    speaker = Speaker(tmp_path)
    with caplog.at_level(logging.WARNING):
        speaker.progress(Loaded(1, 8, 30, (HTML, "no/b.png: it is empty")))
        speaker.progress(Loaded(2, 8, 30, (HTML, "no/b.png: it is empty")))
    assert len(speaker.told) == 1, "the same is told once, and then with every status"
    text = "Files left out: 30 of 38, more than data.max_skipped_share (0.25) allows; the first is " + HTML
    assert text in speaker.told[0].text
    assert [record.getMessage() for record in caplog.records] == [
        f"left out {HTML}",
        "left out no/b.png: it is empty",
        f"{text}; fedpi-device check names all",
    ]
    speaker.status("waiting for a round")
    assert notices(speaker.told[-1]) == [(Notice.SKIPPED_FILES, text)]


def test_few_files_left_out_are_told_without_a_notice_and_mended_ones_no_more(tmp_path: Path) -> None:
    speaker = Speaker(tmp_path)
    speaker.progress(Loaded(1, 30, 10, (HTML,)))
    assert f"Files left out: 10 of 40; the first is {HTML}" in speaker.told[-1].text
    assert notices(speaker.told[-1]) == []
    speaker.progress(Loaded(2, 40, 0, ()))
    assert "left out" not in speaker.told[-1].text


def test_the_notice_of_a_certificate_stays_one_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    speaker = Speaker(tmp_path)
    ends = "The certificate ends in 3 days: renew it."
    monkeypatch.setattr(speaker, "_certificate", type("Watch", (), {"warning": lambda _: ends})())
    speaker.progress(Loaded(1, 1, 9, ("x" * 600,)))
    assert notices(speaker.told[-1])[0] == (Notice.CERTIFICATE, ends)
    assert notices(speaker.told[-1])[1][0] is Notice.SKIPPED_FILES


def test_the_share_itself_is_not_too_much() -> None:
    assert not skipped.too_many(skipped.sentence(9, 1, ["a"], 0.1))
    assert skipped.too_many(skipped.sentence(8, 1, ["a"], 0.1))
    assert skipped.sentence(8, 0, [], 0.0) == ""
