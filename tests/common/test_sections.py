"""Sections of a YAML file are replaced, and all else stays as people wrote it."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.sections import replace, update

TEXT = """\
# The device.

device: rpi1 # its name
broker: # where
  host: old
  # keepalive_s: 30

# images
data:
  images: here
"""


def test_the_named_section_changes_and_comments_stay() -> None:
    made = replace(TEXT, {"broker": {"host": "new", "port": 1}})
    assert made == TEXT.replace(
        "broker: # where\n  host: old\n  # keepalive_s: 30\n", "broker:\n  host: new\n  port: 1\n"
    )


def test_a_section_that_is_missing_is_added_at_the_end() -> None:
    assert replace(TEXT, {"signing": {"key": "k"}}) == TEXT + "signing:\n  key: k\n"
    assert replace("", {"device": "a"}) == "device: a\n"
    assert replace("# only a comment", {"device": "a"}) == "# only a comment\ndevice: a\n"


def test_replacing_twice_changes_nothing_more() -> None:
    once = replace(TEXT, {"device": "rpi2", "signing": {"key": "k"}})
    assert replace(once, {"device": "rpi2", "signing": {"key": "k"}}) == once


@given(st.dictionaries(st.sampled_from(["device", "broker", "data", "state"]), st.integers() | st.text(max_size=20)))
def test_the_result_says_what_was_asked_and_all_that_was_there(sections: dict[str, object]) -> None:
    assert yaml.safe_load(replace(TEXT, sections)) == {**yaml.safe_load(TEXT), **sections}


@pytest.mark.parametrize("text", ["{device: rpi1, broker: {host: a}}", "- a list", "a: [b"])
def test_a_file_that_cannot_be_changed_so_is_left_alone(text: str, tmp_path: Path) -> None:
    path = tmp_path / "device.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=str(path)):
        update(path, {"broker": 2, "device": 3})
    assert path.read_text() == text
