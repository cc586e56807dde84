"""A daemon that is told to leave serving to a service of its own."""

from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from click.testing import CliRunner

from common.stopping import Stop
from device.cli import main
from device.config import DeviceConfig


class Recorder:
    """In the daemon's place: keeps the configuration that it is given."""

    seen: ClassVar[list[DeviceConfig]] = []

    def __init__(self, config: DeviceConfig, _store: object) -> None:
        self.seen.append(config)

    def serve(self, _stop: Stop) -> None:
        pass


@pytest.mark.parametrize(("flags", "process"), [([], "child"), (["--no-serving"], "off")])
def test_the_flag_beats_the_file(
    flags: list[str], process: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device.daemon.Daemon", Recorder)
    monkeypatch.setattr("device.cli.stop_on", lambda *_: Stop())
    path = tmp_path / "device.yaml"
    document = {"federation": "brain", "device": "rpi1", "state": str(tmp_path / "s"), "serving": {"process": "child"}}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    done = CliRunner().invoke(main, ["run", *flags, "--config", str(path)])
    assert done.exit_code == 0, done.output
    assert Recorder.seen[-1].serving.process == process
