import io
import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from device.config import DeviceConfig, ServingConfig
from device.serving_child import WAIT_S, ServingChild
from device.store import CurrentRelease

Install = Callable[..., CurrentRelease]


class Clock:
    """The time, and a process that dies `life_s` after each of its starts."""

    def __init__(self) -> None:
        self.now = 0.0
        self.life_s = 0.4
        self.starts: list[float] = []
        self.told: list[bytes] = []

    def start(self, *_: object, **__: object) -> "Clock":
        self.starts.append(self.now)
        self.stdin = io.BytesIO()
        return self

    @property
    def pid(self) -> int:
        return len(self.starts)

    def poll(self) -> int | None:
        self.told.append(self.stdin.getvalue())
        return 1 if self.now >= self.starts[-1] + self.life_s else None

    def run(self, child: ServingChild, seconds: float) -> list[str]:
        """Tick as the daemon does; returns what it would tell."""
        sentences = []
        end = self.now + seconds
        while self.now < end:
            sentences.append(child.tick(self.now))
            self.now += 0.1
        return [sentence for sentence in sentences if sentence is not None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(subprocess, "Popen", clock.start)
    return clock


@pytest.fixture
def config(tmp_path: Path) -> DeviceConfig:
    return DeviceConfig(federation="brain", device="rpi1", state=str(tmp_path))


def test_the_child_starts_soon_after_a_release_is_installed(
    clock: Clock, config: DeviceConfig, install: Install
) -> None:
    child = ServingChild(config)
    clock.run(child, 5)
    assert clock.starts == []

    install(config.folder, "r1", b"model")
    clock.run(child, 1.2)
    assert len(clock.starts) == 1
    assert msgspec.json.decode(clock.told[0], type=DeviceConfig) == config


def test_no_child_where_serving_is_off(clock: Clock, config: DeviceConfig, install: Install) -> None:
    install(config.folder, "r1", b"model")
    clock.run(ServingChild(msgspec.structs.replace(config, serving=ServingConfig(process="off"))), 5)

    assert clock.starts == []


def test_a_child_that_keeps_dying_is_started_ever_more_slowly(
    clock: Clock, config: DeviceConfig, install: Install
) -> None:
    install(config.folder, "r1", b"model")
    sentences = clock.run(ServingChild(config), 400)
    gaps = [after - before for before, after in itertools.pairwise(clock.starts)]

    assert gaps[:6] == [pytest.approx(clock.life_s + WAIT_S * 2**n, abs=0.3) for n in range(6)]
    assert max(gaps) < 61
    assert sentences[0] == "The serving process ended by itself (exit code 1); it starts again in 1 s."


def test_a_child_that_lived_long_is_started_again_at_once(clock: Clock, config: DeviceConfig, install: Install) -> None:
    install(config.folder, "r1", b"model")
    child = ServingChild(config)
    clock.run(child, 20)
    clock.life_s = 100.0
    sentences = clock.run(child, 130)

    assert sentences[-1].endswith("it starts again in 1 s.")
