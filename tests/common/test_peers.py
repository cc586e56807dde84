"""The list of whose signatures count, on a real disk: damaged, lost and replaced while a process reads it."""

import base64
import logging
from pathlib import Path

import pytest

from broker.authority import new_signing_key
from common.errors import ConfigError
from common.signing import Peers


def line(name: str) -> str:
    return f"{name} {base64.b64encode(new_signing_key()[1]).decode()}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "peers"
    written.write_text(line("rpi1") + line("rpi2"))
    return written


@pytest.mark.parametrize("damage", ["rpi2 @@@\n", "rpi2\n", "rpi2 c2hvcnQ=\n", "rpi2 a b c\n", "rpi2 \udcff\n"])
def test_a_damaged_line_shuts_out_its_name_and_nobody_else(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    peers = Peers(path)
    with path.open("ab") as file:
        file.write(damage.encode(errors="surrogateescape"))
    with caplog.at_level(logging.WARNING):
        peers.look()
    assert peers.get("rpi1")
    assert not peers.get("rpi2")
    assert peers.take_dropped() == {"rpi2"}
    assert f"{path}: line 3 shuts out 'rpi2'" in caplog.text
    again = Peers(path)
    assert again.get("rpi1")
    assert not again.get("rpi2")


def test_a_name_that_is_none_is_shut_out(path: Path) -> None:
    path.write_text(path.read_text() + line("Rpi 3") + line("../evil"))
    assert Peers(path).get("rpi1")
    assert not Peers(path).get("../evil")


@pytest.mark.parametrize("content", [None, b"", b"\n  \n"])
def test_a_list_that_gets_lost_changes_nothing_while_the_process_runs(
    path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    peers = Peers(path)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            peers.look()
    assert peers.get("rpi1")
    assert peers.get("rpi2")
    assert peers.take_dropped() == set()
    assert len(caplog.records) == 1
    path.write_text("# nobody\n")
    peers.look()
    assert peers.take_dropped() == {"rpi1", "rpi2"}


@pytest.mark.parametrize("content", [None, "rpi1 @@\nrpi2 key\n"])
def test_a_process_does_not_start_with_a_list_that_is_missing_or_damaged_throughout(
    path: Path, content: str | None
) -> None:
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=str(path)):
        Peers(path)
