"""Federations of real processes with the numpy model, and the global models that they must arrive at.

- `federation("mosquitto", {"rpi1": 7, "rpi2": 30}, ...)` starts a broker, a coordinator and devices with so many
  examples, and returns them once they are online. They end with the test.
- `expect` computes what a round must make of a global model, by nothing but NumPy.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from common.learning.numpy_learner import numpy_learner
from common.weights import pack
from coordinator.rehearsal.federation import Federation
from coordinator.store import LedgerRow, RoundRow, Store

WAIT_S = 60.0
"""Long beside anything that these tests wait for, since other work may share the machine."""
MODEL = {"tensors": 7, "parameters": 500_000}
SEED = 11
LOADER = "common.learning.numpy_learner:no_images"


@dataclass(frozen=True)
class Heard:
    """A message as an onlooker received it."""

    topic: str
    payload: bytes


class Onlooker:
    """A plain paho client that hears everything and may say anything."""

    def __init__(self, port: int, *filters: str) -> None:
        self.heard: list[Heard] = []
        self._granted = threading.Event()
        self._filters = filters
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe([(name, 1) for name in filters])
        self._client.on_subscribe = lambda *_: self._granted.set()
        self._client.on_message = lambda _c, _u, message: self.heard.append(Heard(message.topic, message.payload))
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._granted.wait(WAIT_S), "the broker granted no subscription"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish, and wait until the broker has it."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(WAIT_S)

    def below(self, prefix: str) -> list[Heard]:
        """What was heard so far on topics that begin so."""
        return [heard for heard in list(self.heard) if heard.topic.startswith(prefix)]


class LiveFederation(Federation):
    """A broker, a coordinator and devices of the numpy model; `examples` names the devices and their data."""

    def __init__(self, folder: Path, examples: Mapping[str, int]) -> None:
        super().__init__(folder)
        self.examples = dict(examples)
        self.store: Store

    def begin(self, broker: str, model: Mapping[str, Any], **sections: Mapping[str, Any]) -> Self:
        """Start everything; `sections` are the coordinator's: training, round, transfer."""
        self.start_broker(broker)
        rules = {"goal": len(self.examples), "minimum": len(self.examples), **sections.pop("round", {})}
        training = {"seed": SEED, "epochs": 1, "evaluate": False, **sections.pop("training", {})}
        chosen = {"name": "numpy", "options": {**MODEL, **model}}
        self.start_coordinator({"model": chosen, "round": rules, "training": training, **sections})
        for device in self.examples:
            self.add(device)
        self.store = self.open_store(WAIT_S)
        self.wait_for_devices(self.store, len(self.examples), WAIT_S)
        return self

    def add(self, device: str, **options: Any) -> None:
        """Start a device for the first time."""
        data = {"loader": LOADER, "options": {"count": self.examples[device]}}
        self.start_device(device, {"data": data, "serving": {"process": "off"}, **options})

    # ---- rounds ---------------------------------------------------------------------------------

    def ask(self, rounds: int = 1) -> int:
        """Ask for rounds; returns the number of the first of them. None may be open or asked for already."""
        self.store.ask_for(rounds)
        return self.store.last_round() + 1

    def finish(self, first: int, rounds: int = 1) -> list[RoundRow]:
        """Wait until the rounds that `ask` named are over; returns them."""
        self.until(lambda: self.store.active_run() is None, "the run was not over")
        self.check()
        rows = self.store.rounds(first - 1)
        assert [row.round for row in rows] == list(range(first, first + rounds))
        return rows

    def run(self, rounds: int = 1) -> list[RoundRow]:
        """Run rounds to their end."""
        return self.finish(self.ask(rounds), rounds)

    def model(self) -> bytes:
        """Return the bytes of the global model."""
        ref = self.store.global_model()
        assert ref is not None
        return self.body(ref.id).read_bytes()

    def expect(self, base: bytes, number: int, *devices: str) -> bytes:
        """Return what round `number` must make of `base` with the updates of `devices`, of all by default."""
        named = devices or tuple(self.examples)
        return expect(base, number, {device: self.examples[device] for device in named})

    def ledger(self, number: int) -> dict[str, LedgerRow]:
        """Return what became of every device in a round."""
        return {row.device: row for row in self.store.ledger(number)}

    # ---- looking on -----------------------------------------------------------------------------

    def until(self, is_so: Callable[[], object], what: str) -> None:
        """Wait until `is_so` returns something true."""
        end = time.monotonic() + WAIT_S
        while not is_so():
            assert time.monotonic() < end, f"{what} within {WAIT_S:g} s; logs: {self.folder}/logs"
            time.sleep(0.002)

    def log(self, name: str) -> str:
        """Return what a process has logged, in all its lives."""
        return self.processes[name].log.read_text(encoding="utf-8")

    def until_logged(self, name: str, text: str) -> None:
        """Wait until a process has logged `text`."""
        self.until(lambda: text in self.log(name), f"{name} did not log {text!r}")

    def trainings(self, device: str, number: int) -> int:
        """Count how often a device began to train in a round."""
        return self.log(device).count(f"now training, round {number}\n")

    def upload(self, number: int, device: str) -> list[Path]:
        """Return what the coordinator has of a device's update: a part while it arrives, then a body."""
        folder = self.folder / "coordinator" / "updates" / str(number) / device
        return [*folder.glob("*.part"), *folder.glob("*.body")]

    def until_half_here(self, number: int, device: str) -> None:
        """Wait until some of a device's update is on the coordinator's disk, but not all of it."""
        self.until(lambda: any(path.stat().st_blocks for path in self.upload(number, device)), "no update began to come")
        assert [path.suffix for path in self.upload(number, device)] == [".part"], "the update came too fast"

    def onlooker(self, *filters: str) -> Onlooker:
        """Return somebody who hears these topics, every one by default."""
        return Onlooker(self.port, *(filters or ("fedpi/#", "fedpi-wire/#")))

    def cli(self, *command: str) -> "subprocess.Popen[str]":
        """Start a command of `fedpi-coordinator`."""
        line = [sys.executable, "-m", "coordinator", *command, "--config", str(self.config("coordinator"))]
        pipe = subprocess.PIPE
        return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=self.environment)


def initial_model() -> bytes:
    """Return the first global model."""
    learner = numpy_learner(MODEL)
    return pack(learner.spec(), learner.initial(SEED))


def expect(base: bytes, number: int, examples: Mapping[str, int]) -> bytes:
    """Return FedAvg's next global model: every update as its device must train it, weighted by its examples.

    An update is local - base in float32; the mean is summed in float64, in the order of the sorted device ids.
    """
    before = np.frombuffer(base, "<f4")
    total = np.zeros(before.size)
    for device in sorted(examples):
        seed = (SEED + number) * 1_000_003 + int.from_bytes(device.encode(), "big") % 1_000_003
        local = before + np.float32((seed % 1000 + 1) / 1024)
        total += (local - before).astype(np.float64) * examples[device]
    return (before.astype(np.float64) + total / float(sum(examples.values()))).astype("<f4").tobytes()


def read_json(payload: bytes) -> dict[str, Any]:
    """Read what people read."""
    document: dict[str, Any] = json.loads(payload)
    return document


Begin = Callable[..., LiveFederation]


def _begin(
    stack: ExitStack, folder: Path, broker: str, examples: Mapping[str, int], /, model: Any = (), **sections: Any
) -> LiveFederation:
    live = stack.enter_context(LiveFederation(folder, examples))
    return live.begin(broker, dict(model), **sections)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Begin]:
    with ExitStack() as stack:
        yield partial(_begin, stack, tmp_path)


@pytest.fixture(scope="module")
def shared_federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begin]:
    """For a module whose tests each add a round of their own."""
    with ExitStack() as stack:
        yield partial(_begin, stack, tmp_path_factory.mktemp("federation"))
