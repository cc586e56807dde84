"""Configuration: every mistake is one sentence that names file and key, never a traceback."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import BrokerConfig, Config, TlsConfig, convert, load
from common.errors import ConfigError


class Example(Config, frozen=True):
    name: str
    broker: BrokerConfig = BrokerConfig()
    tags: tuple[str, ...] = ()
    options: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies defaults


def sentence(tmp_path: Path, text: str | bytes) -> str:
    """The one line that this file is refused with."""
    path = tmp_path / "site.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        load(path, Example)
    told = str(caught.value)
    assert str(path) in told
    assert "\n" not in told
    return told


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_text("name: pi\nbroker: {port: 8883, tls: {ca: ca.pem}}\n")
    assert load(path, Example) == Example(name="pi", broker=BrokerConfig(port=8883, tls=TlsConfig(ca="ca.pem")))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("naem: pi", ["'naem'", "did you mean 'name'"]),
        ("name: pi\nbroker: {prot: 1}", ["'broker.prot'", "did you mean 'port'"]),
        ("name: pi\nbroker: {tls: {ca: x, certifcate: y}}", ["'broker.tls.certifcate'", "'certificate'"]),
        ("name: pi\nzzz: 1", ["'zzz'", "known here are broker, name, options, tags"]),
        ("broker: {}", ["'name'", "missing"]),
        ("name: pi\nbroker: {tls: {}}", ["'broker.tls.ca'", "missing"]),
        ("", ["'name'", "missing"]),
        ("name: 3", ["'name'", "expected `str`, got `int`"]),
        ("name: pi\nbroker: {protocol: 3x1x1}", ["'broker.protocol'", "3x1x1"]),
        ("name: pi\nbroker: {port: many}", ["'broker.port'", "expected `int`"]),
        ("name: pi\nbroker: {port: 70000}", ["'broker.port'", "65535"]),
        ("name: pi\nbroker: 127.0.0.1", ["'broker'", "expected `object`"]),
        ("name: pi\ntags: [a, 1]", ["'tags[1]'", "expected `str`"]),
        ("- name", ["(top level)", "expected `object`"]),
        ("just text", ["(top level)"]),
        ("1: 2", ["(top level)", "quotes"]),
        ("name: pi\nbroker: {no: 2}", ["'broker'", "quotes"]),  # YAML reads `no` as false
    ],
)
def test_a_wrong_key_is_named_with_its_cure(tmp_path: Path, text: str, parts: list[str]) -> None:
    told = sentence(tmp_path, text)
    for part in parts:
        assert part in told


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: [pi", 1),
        ("name: pi\n\tbroker: x", 2),
        ("name: pi\nbroker: {port: 1", 2),
        ("a: b: c", 1),
        ("x: &a *b", 1),
    ],
)
def test_bad_yaml_is_named_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    told = sentence(tmp_path, text)
    assert "not valid YAML" in told
    assert f"line {line}" in told or f"line {line + 1}" in told


@pytest.mark.parametrize(
    "text",
    ["name: 2024-99-99", "name: 0b_", "name: !!int x", "name: !!timestamp x", "name: !!python/object:os.x {}", "\x00"],
)
def test_a_value_that_yaml_itself_stumbles_over(tmp_path: Path, text: str) -> None:
    assert "not valid YAML" in sentence(tmp_path, text)


def test_endless_nesting(tmp_path: Path) -> None:
    sentence(tmp_path, "name: " + "[" * 20_000)
    sentence(tmp_path, "name: pi\nzzz: &a [*a]")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.yaml", tmp_path, tmp_path / "missing" / "file.yaml"):
        with pytest.raises(ConfigError, match="cannot read"):
            load(path, Example)
    assert "UTF-8" in sentence(tmp_path, b"name: \xff\xfe")


@given(st.text(alphabet="abnme:[]{}&*!<>|%@`'\"#- \n\t0123456789.~?,\\x", max_size=60))
def test_any_text_is_a_configuration_or_one_sentence(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text)
    with contextlib.suppress(ConfigError):
        load(path, Example)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=5)
        | st.dates()
        | st.binary(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["name", "broker", "port", "tls", "tags", "naem"]), inner, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_any_parsed_yaml_is_a_configuration_or_one_sentence(plain: Any) -> None:
    with contextlib.suppress(ConfigError):
        convert(plain, Example, "any.yaml")
