"""Entries as systemd's journal receives them."""

import logging
import os
import re
import socket
import sys
from pathlib import Path

import pytest

from common.journal import ALERTS, JournalHandler, entry, fields_of, is_journal, tags

CATALOG = Path(__file__).resolve().parents[2] / "systemd" / "fedpi.catalog"


def record(
    text: str, *arguments: object, level: int = logging.INFO, extra: dict[str, object] | None = None
) -> dict[str, str]:
    made = logging.getLogger("coordinator.service").makeRecord(
        "coordinator.service", level, __file__, 7, text, arguments, None, "serve", extra
    )
    return fields_of(made, made.getMessage())


def test_the_keys_of_a_log_line_become_fields() -> None:
    fields = record("round=%d device=%s took %.1f s at 100 %%, link=%s", 7, "pi-3", 1.25, "bulk")
    assert {name: fields[name] for name in ("ROUND", "DEVICE", "LINK")} == {
        "ROUND": "7",
        "DEVICE": "pi-3",
        "LINK": "bulk",
    }
    assert fields["MESSAGE"] == "round=7 device=pi-3 took 1.2 s at 100 %, link=bulk"
    assert fields["PRIORITY"] == "6"
    assert fields["LOGGER"] == "coordinator.service"


def test_what_a_peer_wrote_forges_no_field() -> None:
    fields = record("refused: %s", "round=9 device=%s\nMESSAGE_ID=1")
    assert not {"ROUND", "DEVICE", "MESSAGE_ID"} & set(fields)
    assert record("priority=%s message=%s", "0", "x")["PRIORITY"] == "6"


@pytest.mark.parametrize(("level", "priority"), [(10, "7"), (20, "6"), (30, "4"), (40, "3"), (50, "2")])
def test_levels_are_syslogs_priorities(level: int, priority: str) -> None:
    assert record("x", level=level)["PRIORITY"] == priority


def test_an_event_that_is_worth_an_alert_has_its_message_id() -> None:
    fields = record("training failed", extra=tags("training-failed", round=3, device="rpi1"))
    assert fields["MESSAGE_ID"] == ALERTS["training-failed"]
    assert (fields["EVENT"], fields["ROUND"], fields["DEVICE"]) == ("training-failed", "3", "rpi1")
    assert "MESSAGE_ID" not in record("counted", extra=tags("update-counted", round=3, device=""))


def test_a_text_of_several_lines_is_one_field() -> None:
    assert entry({"A": "1", "MESSAGE": "x\ny"}) == b"A=1\nMESSAGE\n\x03\0\0\0\0\0\0\0x\ny\n"


def test_the_handler_sends_one_datagram_an_entry(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        journal.settimeout(1)
        log = logging.Logger("device.daemon")
        log.addHandler(JournalHandler(str(tmp_path / "socket")))
        log.error("round=%d %s", 4, "x" * 100_000)
        sent = journal.recv(200_000)
    assert b"ROUND=4\n" in sent
    assert b"PRIORITY=3\n" in sent
    assert len(sent) < 60_000


def test_a_journal_that_is_away_loses_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.Logger("device.daemon")
    log.addHandler(JournalHandler(str(tmp_path / "nobody")))
    log.warning("link=%s down", "bulk")
    assert capsys.readouterr().err == "link=bulk down\n"


def test_stderr_is_the_journal_only_where_systemd_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setattr("common.journal.SOCKET", str(tmp_path))
        status = os.fstat(stream.fileno())
        assert is_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not is_journal({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not is_journal({})


def test_the_catalog_explains_every_alert() -> None:
    assert set(re.findall(r"^-- ([0-9a-f]{32})$", CATALOG.read_text(encoding="utf-8"), re.MULTILINE)) == set(
        ALERTS.values()
    )
