"""Configuration: every mistake is one sentence that names file and key, never a traceback."""

import contextlib
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.settings import ServeConfig
from common.config import BrokerConfig, Config, DataConfig, TlsConfig, checked_fields, convert, load, read_password
from common.errors import ConfigError
from common.yaml_text import dump
from coordinator.config import CoordinatorConfig, WatchConfig
from device.config import DeviceConfig


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
        ("name: 3", ["'name'", "expected text, got a whole number", "put it in quotes: '3'"]),
        ("name: pi\nbroker: {port: many}", ["'broker.port'", "expected a whole number, got text 'many'"]),
        ("name: pi\nbroker: {port: 70000}", ["'broker.port'", "65535"]),
        ("name: pi\nbroker: 127.0.0.1", ["'broker'", "expected keys with values"]),
        ("name: pi\ntags: [a, 1]", ["'tags[1]'", "expected text", "quotes: '1'"]),
        ("- name", ["(top level)", "expected keys with values"]),
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
        ("name: pi\ntags: [a]\nname: rpi", 3),
        ("name: pi\nbroker: {port: 1, port: 2}", 2),
        ("name: pi\nx: {<<: {a: 1}, <<: {b: 1}}", 2),
        ("name: pi\nx: &a {y: *a}", 2),
        ('name: "\\ud800"', 1),
    ],
)
def test_bad_yaml_is_named_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    told = sentence(tmp_path, text)
    assert "not valid YAML" in told
    assert f"line {line}" in told or f"line {line + 1}" in told


@pytest.mark.parametrize(
    "text",
    [
        "name: 2024-99-99",
        "name: 0b_",
        "name: !!int x",
        "name: !!timestamp x",
        "name: !!bool x",
        "name: !!python/object:os.x {}",
        "\x00",
    ],
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


def test_a_key_that_stands_twice_is_named_with_both_lines(tmp_path: Path) -> None:
    told = sentence(tmp_path, 'name: pi\nbroker:\n  port: 1\n  host: a\n  "port": 2\n')
    assert "line 5" in told
    assert "'port' stands twice, first in line 3" in told


def test_a_merged_key_is_no_second_one(tmp_path: Path) -> None:
    path = tmp_path / "merged.yaml"
    path.write_text("name: pi\nbroker: &usual {port: 1, host: a}\noptions: {x: {<<: *usual, port: 2}, y: *usual}\n")
    assert load(path, Example).options == {"x": {"port": 2, "host": "a"}, "y": {"port": 1, "host": "a"}}


def test_aliases_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for n in range(1, 9):
        text += f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n"
    assert "more than 100,000 values" in sentence(tmp_path, text)
    assert "larger than" in sentence(tmp_path, "#" * 2**18 + "\n")


def read(tmp_path: Path, text: str) -> Example:
    path = tmp_path / "read.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, Example)


@pytest.mark.parametrize("word", ["no", "yes", "on", "Off", "true"])
def test_a_word_that_yaml_takes_for_a_truth_value_is_to_be_quoted(tmp_path: Path, word: str) -> None:
    for text in (f"name: {word}", f"name: pi\ntags: [a, {word}]", f"name: pi\nbroker: {{protocol: {word}}}"):
        assert f"put it in quotes: '{word}'" in sentence(tmp_path, text)
    assert read(tmp_path, f"name: '{word}'").name == word


@pytest.mark.parametrize("word", ["7", "1e5", "2024-01-01", "0x1f"])
def test_what_yaml_takes_for_a_number_or_date_is_to_be_quoted_as_well(tmp_path: Path, word: str) -> None:
    assert f"put it in quotes: '{word}'" in sentence(tmp_path, f"name: {word}")


@pytest.mark.parametrize(("word", "value"), [("1e-3", 0.001), ("5E4", 50000.0), ("-2.5e3", -2500.0), (".5e+1", 5.0)])
def test_numbers_are_written_with_an_exponent_alone(tmp_path: Path, word: str, value: float) -> None:
    assert read(tmp_path, f"name: pi\nbroker: {{heartbeat_s: {word}}}\n" if value > 0 else "name: pi")
    assert read(tmp_path, f"name: pi\noptions: {{x: {word}}}\n").options == {"x": value}


def test_what_is_dumped_reads_the_same_again(tmp_path: Path) -> None:
    words = {"name": "1e5", "options": {"a": "no", "b": "1e-3", "c": "~", "d": 1e-3, "e": "x: y", "f": "007"}}
    assert read(tmp_path, dump(words)) == Example(**words)  # type: ignore[arg-type]


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/pi")
    text = "name: pi\nbroker: {password_file: ~/pw, tls: {ca: ~/ca, certificate: ~/c, key: ~}}"
    broker = read(tmp_path, text).broker
    assert (broker.password_file, broker.tls) == ("/home/pi/pw", TlsConfig(ca="/home/pi/ca", certificate="/home/pi/c"))
    data = DataConfig(images="~", labels="~/l.csv", unseen="a/~b")
    assert (data.images, data.labels, data.unseen) == ("/home/pi", "/home/pi/l.csv", "a/~b")


@pytest.mark.parametrize("config", [DeviceConfig, CoordinatorConfig, ServeConfig, WatchConfig])
def test_every_key_that_names_a_file_or_folder_takes_a_tilde(config: type[Any]) -> None:
    """A new key whose comment or name says path must be of the type FilePath."""
    texts = {"state", "file", "ca", "certificate", "key", "peers", "password_file", "images", "labels", "unseen"}
    texts |= {"folder", "authority"}
    for section in sections(config):
        for field in msgspec.structs.fields(section):
            if field.name in texts:
                assert field.name in dict(checked_fields(section)), f"{section.__name__}.{field.name}"


def sections(config: type[Any]) -> set[type[Config]]:
    found: set[type[Config]] = set()
    left = [config]
    while left:
        found.add(section := left.pop())
        hints = typing.get_type_hints(section).values()
        parts = [part for hint in hints for part in (hint, *typing.get_args(hint))]
        left += [p for p in parts if isinstance(p, type) and issubclass(p, Config) and p not in found]
    return found


@pytest.mark.parametrize("text", ["~nobody-of-this-name/x", "a\\0b"])
def test_a_path_that_cannot_be_is_named_with_its_key(tmp_path: Path, text: str) -> None:
    assert "key 'broker.password_file'" in sentence(tmp_path, f'name: pi\nbroker: {{password_file: "{text}"}}')
    with pytest.raises(ConfigError, match="password_file"):
        BrokerConfig(password_file=text.replace("\\0", "\0"))


def test_a_host_is_a_name_or_an_address(tmp_path: Path) -> None:
    assert read(tmp_path, "name: pi\nbroker: {host: '[::1]'}").broker.host == "::1"
    told = sentence(tmp_path, "name: pi\nbroker: {host: 'mqtt://10.0.0.2:1883'}")
    assert "key 'broker.host'" in told
    assert "write 10.0.0.2 here, and the port 1883 at 'port'" in told
    told = sentence(tmp_path, "name: pi\nbroker: {protocol: 3x1x1}")
    assert "did you mean '3.1.1'" in told


def test_a_device_name_is_explained_in_words(tmp_path: Path) -> None:
    path = tmp_path / "device.yaml"
    for name in ("RPi_1", "x" * 40):
        path.write_text(f"federation: fed\ndevice: {name}\nstate: s\n")
        with pytest.raises(ConfigError, match=r"key 'device': '.*' is not a valid name; use 1 to 32 of a-z") as caught:
            load(path, DeviceConfig)
        assert "regex" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "password"),
    [(b"secret\n", "secret"), (b"\xef\xbb\xbfsecret\r\n", "secret"), ("grün".encode(), "grün")],
)
def test_a_password_file_is_utf_8_with_or_without_a_byte_order_mark(
    tmp_path: Path, content: bytes, password: str
) -> None:
    (tmp_path / "pw").write_bytes(content)
    assert read_password(BrokerConfig(password_file=str(tmp_path / "pw"))) == password


@pytest.mark.parametrize("content", [b"gr\xfcn\n", "secret".encode("utf-16"), bytes(2**19)])
def test_a_password_file_that_is_something_else_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pw").write_bytes(content)
    with pytest.raises(ConfigError, match=r"broker\.password_file: .*/pw: cannot read the password: it is"):
        read_password(BrokerConfig(password_file=str(tmp_path / "pw")))


def test_a_byte_order_mark_is_no_part_of_a_configuration(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffname: pi").name == "pi"


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
