"""What `make faults` says of an injection that could not be made: not that it was survived."""

import io
import os
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from tests.faults import brokers, campaign
from tests.faults.__main__ import FOLDERS
from tests.faults.document import write
from tests.faults.report import FAILED, MISSING, Injection, Report, exit_code, summarise, table_of
from tests.faults.table import ROWS

ABSENT = "aedes is not installed"


def injection(seed: int, *, survived: bool = True, skipped: str = "") -> Injection:
    return Injection(
        row=16,
        broker="mosquitto",
        seed=seed,
        survived=survived,
        recovery_s=1.0,
        resent_share=None,
        note="",
        seconds=1.0,
        replay="make faults",
        skipped=skipped,
    )


def report(*injections: Injection, **matrix: str) -> Report:
    return summarise([ROWS[16]], injections, [], 1.0, matrix)


def shown(found: Report) -> str:
    out = Console(file=io.StringIO(), width=250)
    out.print(table_of(found))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_a_skipped_injection_is_not_survived_and_no_success() -> None:
    skipped = injection(0, survived=False, skipped=ABSENT)
    found = report(skipped, injection(1))
    (row,) = found.rows
    assert (row.injections, row.survived, row.skipped, row.verdict) == (1, 1, 1, "1 of 2 skipped")
    assert not found.all_survived
    assert found.skipped == (ABSENT,)
    assert exit_code(found) == MISSING
    assert "1 of 2 skipped" in shown(found)
    assert skipped.sentence == f"mosquitto row 16 seed 0: skipped: {ABSENT}"


def test_what_was_not_survived_outweighs_what_was_skipped() -> None:
    found = report(injection(0, survived=False, skipped=ABSENT), injection(1, survived=False))
    assert found.rows[0].verdict == "NOT SURVIVED"
    assert exit_code(found) == FAILED


def test_a_broker_that_is_missing_is_no_success() -> None:
    assert exit_code(report(injection(0), nats="nats-server is not installed")) == MISSING
    assert exit_code(report(injection(0), nats="")) == 0


def test_the_page_says_what_was_skipped(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    page.write_text("<!-- figures: make faults -->\nold\n<!-- end of figures -->\n")
    write(page, report(injection(0, survived=False, skipped=ABSENT), injection(1)))
    assert f"Not injected: {ABSENT}." in page.read_text()
    assert "| 1 | 1, 1 skipped |" in page.read_text()


def test_the_signed_table_has_a_place_and_a_report_of_its_own(tmp_path: Path) -> None:
    page, plain, signed = (
        tmp_path / "faults.md",
        "<!-- figures: make faults -->",
        "<!-- figures: make faults SIGNED=1 -->",
    )
    page.write_text("".join(f"{mark}\nold\n<!-- end of figures -->\n" for mark in (plain, signed)))
    write(page, msgspec.structs.replace(report(injection(0)), is_signed=True))
    before, _, after = page.read_text().partition(signed)
    assert ("old" in before, "| 16 | " in before, "old" in after, "| 16 | " in after) == (True, False, False, True)
    assert len(set(FOLDERS.values())) == len(FOLDERS)


def test_a_signed_injection_is_replayed_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = campaign.run_unit(campaign.Unit(((18, (3,)),), tmp_path, is_signed=True))
    assert [(i.is_signed, i.replay) for i in found.injections] == [
        (True, "make faults ROWS=18 SEED=3 INJECTIONS=1 SIGNED=1")
    ]


def test_a_broker_that_cannot_be_had_skips_its_injection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "absence", lambda _: ABSENT)
    monkeypatch.setattr(campaign, "Arena", NoArena)
    monkeypatch.setattr(campaign, "undisturbed", lambda _: None)
    monkeypatch.setattr(campaign, "govern", lambda *_, **__: None)
    found = campaign.run_unit(campaign.Unit(((16, (0, 1)),), tmp_path))
    assert [(i.survived, i.skipped) for i in found.injections] == [(False, ABSENT)] * 2


def test_a_row_that_needs_root_is_skipped_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = campaign.run_unit(campaign.Unit(((18, (0,)),), tmp_path))
    assert [(i.survived, i.skipped) for i in found.injections] == [(False, "row 18 needs root")]


class NoArena:
    """Stands for a federation that runs: a fault that is skipped touches nothing of it."""

    processes = ("broker",)

    def __init__(self, *_: object) -> None:
        self.seed = 0
        self.proxy = NoProxy()

    def log_sizes(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        pass


class NoProxy:
    """Its tally is set before every injection."""

    tally: object = None
