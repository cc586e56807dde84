import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

import device.inference
from common.config import BrokerConfig
from common.learning.seam import Examples, Site
from device.cli import main
from device.config import DeviceConfig, read_config
from device.store import CurrentRelease, hold

Install = Callable[..., CurrentRelease]
Model = Callable[..., bytes]
Png = Callable[[int], bytes]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a device's configuration, with these sections in it."""

    def write(**sections: object) -> Path:
        path = tmp_path / "device.yaml"
        plain = {"federation": "brain", "device": "rpi1", "state": str(tmp_path / "state"), **sections}
        path.write_text(yaml.safe_dump(plain))
        return path

    return write


@pytest.fixture
def images(tmp_path: Path, png: Png) -> Path:
    for label, greys in (("no", (1, 2, 3)), ("yes", (201, 202))):
        folder = tmp_path / "images" / label
        folder.mkdir(parents=True)
        for grey in greys:
            (folder / f"{grey}.png").write_bytes(png(grey))
    return tmp_path / "images"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# ---- infer ----------------------------------------------------------------------------------


def test_infer_prints_a_row_an_image(
    write: Write, tmp_path: Path, images: Path, model: Model, install: Install
) -> None:
    install(tmp_path / "state", "r7", model(), ("clear", "lesion"))
    result = run("infer", images / "no/1.png", images / "yes/201.png", "--config", write())

    lines = result.output.splitlines()
    assert result.exit_code == 0
    assert lines[0].split("  ")[0] == "file"
    assert "probability of lesion" in lines[0]
    assert lines[1].split()[1:3] == ["clear", "0.0018"]
    assert lines[2].split()[1:3] == ["lesion", "0.9753"]
    assert lines[2].split()[-1] == "r7"


def test_infer_names_what_it_cannot_decode_and_goes_on(
    write: Write, tmp_path: Path, images: Path, model: Model, install: Install
) -> None:
    install(tmp_path / "state", "r7", model())
    (tmp_path / "broken.jpg").write_text("no image")
    files = (tmp_path / "broken.jpg", tmp_path / "absent.jpg", images / "yes/202.png")
    result = run("infer", *files, "--config", write(), "--json")

    broken, absent, good = json.loads(result.output)
    assert result.exit_code == 65
    assert (broken["ok"], absent["ok"], good["ok"]) == (False, False, True)
    assert broken["file"].endswith("broken.jpg")
    assert "neither a JPEG nor a PNG" in broken["text"]
    assert "No such file" in absent["text"]
    assert good["label"] == "yes"
    assert set(good) == {"file", "ok", "label", "probability", "milliseconds", "release", "text"}


def test_infer_takes_a_model_file_instead(write: Write, tmp_path: Path, images: Path, model: Model) -> None:
    (tmp_path / "mine.tflite").write_bytes(model(slope=-0.05))
    result = run("infer", images / "no/1.png", "--config", write(), "--model", tmp_path / "mine.tflite", "--json")

    (row,) = json.loads(result.output)
    assert (row["label"], row["release"]) == ("yes", "mine.tflite")


def test_infer_without_a_release_says_so_in_one_sentence(write: Write, images: Path) -> None:
    result = run("infer", images / "no/1.png", "--config", write())

    assert result.exit_code == 65
    assert result.output.count("\n") == 1
    assert "no release is installed" in result.output


@pytest.mark.parametrize(("content", "reason"), [(None, "cannot read the model"), (b"hello", "not a TFLite model")])
def test_infer_refuses_a_model_file_that_is_none(
    write: Write, tmp_path: Path, images: Path, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "mine.tflite").write_bytes(content)
    result = run("infer", images / "no/1.png", "--config", write(), "--model", tmp_path / "mine.tflite")

    assert result.exit_code == 65
    assert reason in result.output


def test_infer_refuses_a_damaged_release(
    write: Write, tmp_path: Path, images: Path, model: Model, install: Install
) -> None:
    body = tmp_path / "state" / install(tmp_path / "state", "r7", model()).file
    body.write_bytes(body.read_bytes()[:-1] + b"?")
    result = run("infer", images / "no/1.png", "--config", write())

    assert result.exit_code == 65
    assert "damaged" in result.output


# ---- check ----------------------------------------------------------------------------------


def findings(result: Result) -> dict[str, dict[str, object]]:
    return {finding["check"]: finding for finding in json.loads(result.output)}


def test_check_of_a_device_in_order(write: Write, images: Path, mosquitto: BrokerConfig) -> None:
    config = write(
        broker=msgspec.to_builtins(mosquitto),
        data={"images": str(images)},
        models={"mine": "common.learning.numpy_learner:numpy_learner"},
    )
    result = run("check", "--config", config, "--json")

    found = findings(result)
    assert result.exit_code == 0, result.output
    assert found.pop("health")["standing"] != "FAIL", "how this machine is, is its own affair"
    assert {name: finding["standing"] for name, finding in found.items()} == dict.fromkeys(
        ["configuration", "state folder", "images", "models", "trainer", "serving", "identity", "broker"],
        "ok",
    )
    assert found["images"]["text"] == "train 5 (no 3, yes 2); unseen 0 (no 0, yes 0)"
    assert "your own: mine" in str(found["models"]["text"])
    assert "speaks MQTT 5: packets up to 1,179,648 bytes" in str(found["broker"]["text"])


def test_check_names_every_skipped_file(write: Write, images: Path, mosquitto: BrokerConfig) -> None:
    (images / "no/empty.png").touch()
    (images / "yes/notes.txt").write_text("not an image")
    config = write(broker=msgspec.to_builtins(mosquitto), data={"images": str(images)})
    result = run("check", "--config", config)

    assert result.exit_code == 0
    assert "Files left out: 2 of" in result.output
    assert "no/empty.png: the file is empty" in result.output
    assert "yes/notes.txt: it is neither a JPEG nor a PNG" in result.output


@pytest.mark.process  # check asks timedatectl for the clock
@pytest.mark.parametrize(
    ("sections", "found", "code"),
    [
        ({"serving": {"treads": 2}}, "configuration: unknown key 'serving.treads'; did you mean 'threads'?", 78),
        ({"data": {"images": "no/such/folder"}}, "images: data.images: there is no folder no/such/folder", 78),
        ({"models": {"mine": "no_such_module:make"}}, "models: models.mine: cannot import 'no_such_module'", 78),
        ({"state": "/proc/fedpi"}, "state folder: state: cannot write to /proc/fedpi", 70),
        ({}, "broker: no connection to the broker", 69),
    ],
)
def test_check_fails_with_the_code_of_the_first_failure(
    write: Write, free_port: int, sections: dict[str, object], found: str, code: int
) -> None:
    result = run("check", "--config", write(broker={"port": free_port}, **sections), "--json")

    first = next(finding for finding in findings(result).values() if finding["standing"] == "FAIL")
    assert (first["exit_code"], result.exit_code) == (code, code)
    where, _, reason = found.partition(": ")
    assert first["check"] == where
    assert reason in str(first["text"])


@pytest.mark.process
def test_check_of_a_silent_broker_ends_in_time(write: Write, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        started = time.monotonic()
        result = run("check", "--config", write(broker={"port": free_port}), "--json")

    assert "does not answer within 5 s" in str(findings(result)["broker"]["text"])
    assert result.exit_code == 69
    assert time.monotonic() - started < 15


def test_check_warns_where_nothing_can_be_trained_and_fails_where_nothing_can_be_served(
    write: Write, mosquitto: BrokerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device.inference, "INTERPRETERS", ())
    monkeypatch.setattr("device.check.importlib.util.find_spec", lambda _name: None)
    broker = msgspec.to_builtins(mosquitto)
    result = run("check", "--config", write(broker=broker), "--json")

    found = findings(result)
    assert (found["images"]["standing"], found["trainer"]["standing"]) == ("warn", "warn")
    assert found["serving"]["standing"] == "FAIL"
    assert "install fedpi[inference], or set serving.process to 'off'" in str(found["serving"]["text"])
    assert result.exit_code == 78

    result = run("check", "--config", write(broker=broker, serving={"process": "off"}), "--json")
    assert findings(result)["serving"]["standing"] == "warn"
    assert result.exit_code == 0


def test_check_asks_the_loader_of_your_own(
    write: Write, mosquitto: BrokerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    empty = Examples(np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, np.int64))

    def load(_data: object, image_size: int) -> Site:
        asked.append(image_size)
        return Site(empty, empty, ("a.dcm: unreadable",))

    monkeypatch.setattr("device.check.seam.resolve", lambda _entry, _key: load)
    config = write(broker=msgspec.to_builtins(mosquitto), data={"loader": "mine:load"})
    result = run("check", "--config", config, "--json")

    assert asked == [32]
    assert findings(result)["images"]["details"] == ["a.dcm: unreadable"]


# ---- run, serve, help -----------------------------------------------------------------------


def test_a_second_daemon_on_the_same_folder_is_refused(write: Write, tmp_path: Path) -> None:
    with hold(tmp_path / "state/lock", "another device process runs"):
        result = run("run", "--config", write())

    assert result.exit_code == 78
    assert "another device process runs" in result.output


def test_a_state_folder_that_cannot_be_written_is_one_sentence(write: Write) -> None:
    result = run("serve", "--config", write(state="/proc/fedpi"))

    assert result.exit_code == 78
    assert "state: cannot write /proc/fedpi" in result.output


def test_the_example_configuration_loads_and_its_comments_are_the_defaults(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "config/device.yaml"
    plain = read_config(example)
    commented = tmp_path / "device.yaml"
    commented.write_text(uncomment(example.read_text()))
    full = read_config(commented)

    defaults = DeviceConfig(federation="brain", device="rpi1", state="runs/rpi1", data=plain.data)
    assert plain == defaults
    tls = full.broker.tls
    assert tls is not None
    assert full == msgspec.structs.replace(defaults, broker=msgspec.structs.replace(defaults.broker, tls=tls))


def uncomment(text: str) -> str:
    """Turn every commented default into a setting: those are the lines whose comment is `key: value`."""
    lines = []
    for line in text.splitlines():
        body = line.lstrip()
        is_setting = body.startswith("# ") and ":" in body.split("#")[1] and "fedpi-device" not in body
        lines.append(line.replace("# ", "", 1) if is_setting else line)
    return "\n".join(lines)
