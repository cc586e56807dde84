"""A device's models of its own: what the coordinator could not be told of is refused before the device says Hello."""

from pathlib import Path

import pytest
import yaml

from common.errors import ConfigError
from common.limits import CHUNK_LEAST
from common.messages import MAX_ABILITIES, MAX_LABEL, Hello, decode, encode
from common.plan import abilities
from device.config import MAX_NAMES, read_config

MAKER = "common.learning.numpy_learner:numpy_learner"


def write(folder: Path, *names: str) -> Path:
    path = folder / "device.yaml"
    plain = {"federation": "lab", "device": "rpi1", "state": str(folder), "models": dict.fromkeys(names, MAKER)}
    path.write_text(yaml.safe_dump(plain))
    return path


def numbered(count: int, length: int) -> list[str]:
    return [f"{number:02d}".ljust(length, "x") for number in range(count)]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([""], "models: the name '' has 0 characters"),
        (["x" * (MAX_LABEL + 1)], f"has {MAX_LABEL + 1} characters; .* 1 to {MAX_LABEL} printable ones: rename it"),
        (["a\nb"], r"models: the name 'a\\nb' has 3 characters; .* printable"),
        (numbered(MAX_ABILITIES + 1, 2), "models: there are 65; a device can offer 64: drop some"),
        (numbered(MAX_NAMES // 64 + 1, 64), f"models: the names have {MAX_NAMES + 64} bytes together, .* shorten them"),
        (["é" * 90 + name for name in numbered(12, 2)], "models: the names have 2184 bytes together"),
    ],
    ids=["empty", "long", "a line", "many", "long together", "long together in UTF-8"],
)
def test_models_that_no_hello_could_name_are_refused_with_the_key_and_the_cure(
    tmp_path: Path, names: list[str], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        read_config(write(tmp_path, *names))


@pytest.mark.parametrize(
    "names",
    [
        numbered(MAX_ABILITIES - len(abilities([])), MAX_NAMES // MAX_ABILITIES),
        numbered(MAX_NAMES // MAX_LABEL, MAX_LABEL),
    ],
    ids=["many", "long"],
)
def test_all_other_models_are_named_in_a_hello_that_any_coordinator_reads_and_any_broker_carries(
    tmp_path: Path, names: list[str]
) -> None:
    config = read_config(write(tmp_path, *names))
    hello = Hello(device="a" * 32, nonce="f" * 32, epoch="f" * 32, abilities=abilities(config.models))
    assert decode(encode(hello), Hello) == hello
    assert len(encode(hello)) <= CHUNK_LEAST
