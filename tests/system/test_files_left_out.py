"""A site whose images are mostly no images: the round goes on with the rest, and everybody is told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.messages import DeviceStatus, decode_story
from coordinator.attention import Notice, attention
from coordinator.watching import Picture, take
from tests.system.conftest import LiveFederation

pytestmark = pytest.mark.system


def fill(folder: Path) -> Path:
    """4 images of each label, and 15 files beside each that a failed download left, one with a broken name."""
    for label in ("no", "yes"):
        (folder / label).mkdir(parents=True)
        for number in range(4):
            Image.fromarray(np.full((8, 8), number, np.uint8)).save(folder / label / f"{number}.png")
        for number in range(14):
            (folder / label / f"page{number}.jpg").write_text("<!DOCTYPE html><html><body>404</body></html>")
        (folder / label / "t\udcfcmor\n.jpg").write_text("<html>")
    return folder


def test_a_round_with_30_of_38_files_left_out_says_so_everywhere(tmp_path: Path) -> None:
    data = {"images": str(fill(tmp_path / "images"))}
    with LiveFederation(tmp_path / "live", {"rpi1": 8}) as live:
        live.begin("mosquitto", devices={"rpi1": {"data": data}})
        with live.onlooker("fedpi/2/rehearsal/dev/rpi1/status") as onlooker:
            (row,) = live.run()
        assert row.phase == "committed"
        assert live.ledger(row.round)["rpi1"].num_examples == 8
        assert live.ledger(row.round)["rpi1"].metrics["skipped_files"] == 30
        told = "Files left out: 30 of 38, more than data.max_skipped_share (0.1) allows; the first is no/page0.jpg"
        assert told in live.log("rpi1")
        status = decode_story(onlooker.heard[-1].payload, DeviceStatus)
        assert told in status.text
        found = attention(take(Picture("rehearsal"), status, 0.0))
        assert [(one.notice, one.device) for one in found if told in one.text] == [(Notice.SKIPPED_FILES, "rpi1")]
