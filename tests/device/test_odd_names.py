"""Names of files that are not UTF-8 or hold control characters end no command and forge no line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from coordinator.cli import main as coordinator
from device.cli import main as device

ODD = (os.fsdecode(b"t\xfcmor.jpg"), "x.png\nbroker ok", "y\x1b[2J\u202e.png", "z\r.png")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in ("no", "yes"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (16, 16), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    for name in ODD:
        (tmp_path / "images" / "yes" / name).write_bytes(b"no image")
    return tmp_path / "images"


@pytest.fixture
def config(images: Path, tmp_path: Path) -> Path:
    path = tmp_path / "device.yaml"
    path.write_text(f"federation: fed\ndevice: pi\nstate: {tmp_path / 'state'}\ndata: {{images: {images}}}\n")
    path.chmod(0o644)
    return path


def is_plain(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


@pytest.mark.process
def test_check_names_each_in_its_line_and_as_json(config: Path) -> None:
    done = CliRunner().invoke(device, ["check", "--config", str(config)], catch_exceptions=False)
    assert is_plain(done.stdout)
    assert sum(line.startswith("images: yes/") for line in done.stdout.splitlines()) == len(ODD)
    assert not any(line.startswith("broker ok") for line in done.stdout.splitlines())
    assert r"yes/t\xfcmor.jpg" in done.stdout
    done = CliRunner().invoke(device, ["check", "--json", "--config", str(config)], catch_exceptions=False)
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert len(found["images"]["details"]) == len(ODD)


def test_split_leaves_them_out_and_says_so(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "split"
    done = CliRunner().invoke(coordinator, ["split", str(images), "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert is_plain(done.stdout)
    assert len(json.loads((out / "split.json").read_text(encoding="utf-8"))["skipped"]) == len(ODD)


def test_a_command_that_is_given_such_a_name_answers_in_one_line(tmp_path: Path) -> None:
    for name in ODD:
        for arguments in (["check", "--config", name], ["train", "--data", name, "--out", "x.h5"]):
            done = CliRunner().invoke(device, arguments, catch_exceptions=False)
            assert done.exit_code in {2, 78}
            assert is_plain(done.output), arguments
            done.output.encode()
    assert tmp_path.is_dir()
