"""Federations of real processes with the numpy model, and the global models that they must arrive at.

- `with LiveFederation(folder, {"rpi1": 7}) as live: live.begin("mosquitto")` starts a broker, a coordinator and a
  device of 7 examples.
- `expect` computes what a round must make of a global model, by nothing but NumPy.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from common.learning.numpy_learner import numpy_learner
from common.weights import pack
from coordinator.rehearsal.federation import Federation
from coordinator.store import LedgerRow, RoundRow, Store
from tests.conftest import find_ports

WAIT_S = 60.0
"""Long beside anything that these tests wait for, since other work may share the machine."""
MODEL = {"tensors": 7, "parameters": 500_000}
SEED = 11
NO_OPTIONS: Mapping[str, Any] = {}
LOADER = "common.learning.numpy_learner:no_images"


@dataclass(frozen=True)
class Heard:
    """A message as an onlooker received it."""

    topic: str
    payload: bytes


class Onlooker:
    """A plain paho client: it hears what passes on the topics of `filters`, and may say anything."""

    def __init__(self, port: int, *filters: str) -> None:
        self.heard: list[Heard] = []
        self._granted = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe([(name, 1) for name in filters])
        self._client.on_subscribe = lambda *_: self._granted.set()
        self._client.on_message = lambda _c, _u, message: self.hear(Heard(message.topic, bytes(message.payload)))
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._granted.wait(WAIT_S), "the broker granted no subscription"
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def hear(self, heard: Heard) -> None:
        """Take a message; called from paho's thread."""
        self.heard.append(heard)

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> mqtt.MQTTMessageInfo:
        """Publish; the answer tells when the broker has it."""
        return self._client.publish(topic, payload, qos=1, retain=retain)

    def below(self, prefix: str) -> list[Heard]:
        """What was heard so far on topics that begin so."""
        return [heard for heard in list(self.heard) if heard.topic.startswith(prefix)]


class LiveFederation(Federation):
    """A broker, a coordinator and devices of the numpy model; `examples` names the devices and their data."""

    def __init__(self, folder: Path, examples: Mapping[str, int]) -> None:
        super().__init__(folder)
        self.port = find_ports(1)  # nobody takes it while the broker is away
        self.examples = dict(examples)
        self.options: dict[str, Any] = {}
        self.store: Store

    def begin(
        self,
        broker: str,
        model: Mapping[str, Any] = NO_OPTIONS,
        devices: Mapping[str, Any] = NO_OPTIONS,
        **sections: Mapping[str, Any],
    ) -> Self:
        """Start everything and wait until it is online: see `launch`."""
        self.launch(broker, model, devices, **sections)
        self.store = self.open_store(WAIT_S)
        self.wait_for_devices(self.store, len(self.examples), WAIT_S)
        return self

    def launch(
        self,
        broker: str,
        model: Mapping[str, Any] = NO_OPTIONS,
        devices: Mapping[str, Any] = NO_OPTIONS,
        **sections: Mapping[str, Any],
    ) -> None:
        """Start everything.

        `devices` are options of single devices, `sections` those of the coordinator: training, round, transfer.
        """
        self.start_broker(broker)
        self.options = {
            "model": {"name": "numpy", "options": {**MODEL, **model}},
            "round": {"goal": len(self.examples), "minimum": len(self.examples)},
            "training": {"seed": SEED, "epochs": 1, "evaluate": False},
            **sections,
        }
        self.start_coordinator(self.options)
        for device in self.examples:
            self.add(device, **devices.get(device, NO_OPTIONS))

    def add(self, device: str, **options: Any) -> None:
        """Start a device for the first time."""
        data = {"loader": LOADER, "options": {"count": self.examples[device]}}
        self.start_device(device, {"data": data, "serving": {"process": "off"}, **options})

    def serve(self, device: str) -> None:
        """Start what answers images for a device."""
        self._start(f"{device}-serving", ["device", "serve", "--config", str(self.config(device))])

    def leave(self, device: str) -> None:
        """Stop a device in order, and wait until the coordinator knows."""
        self.processes.pop(device).stop()
        self.until(lambda: self.states()[device] == "offline", f"{device} stayed online")

    def come(self, device: str) -> None:
        """Start a device again, and wait until the coordinator knows."""
        self.start_device(device)
        self.until(lambda: self.states()[device] == "online", f"{device} did not come online")

    def states(self) -> dict[str, str]:
        """Return which devices the coordinator takes for online, and which for offline."""
        return {row.device: row.state for row in self.store.devices()}

    # ---- rounds ---------------------------------------------------------------------------------

    def ask(self, rounds: int = 1) -> int:
        """Ask for rounds while none is open; returns the number of the first of them."""
        first = self.store.last_round() + 1
        self.store.ask_for(rounds)
        return first

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

    def phase(self, number: int) -> str:
        """Return where a round stands."""
        (row,) = self.store.rounds(number - 1)
        return row.phase

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

    def until_partly_here(self, device: str, size: int) -> None:
        """Wait until at least `size` bytes of a device's update are on the coordinator's disk, but not all of it."""
        folder = self.folder / "coordinator" / "updates" / device
        # A part has its full length from the start; the disk holds what was written.
        self.until(lambda: any(512 * path.stat().st_blocks >= size for path in folder.glob("*.part")), "no update came")
        assert not list(folder.glob("*.body")), "the update came too fast"

    def onlooker(self, *filters: str) -> Onlooker:
        """Return somebody who hears these topics, every one by default."""
        return Onlooker(self.port, *(filters or ("fedpi/#", "fedpi-wire/#")))

    def cli(self, *command: str) -> "subprocess.Popen[str]":
        """Start a command of `fedpi-coordinator`."""
        line = [sys.executable, "-m", "coordinator", *command, "--config", str(self.config("coordinator"))]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=self.environment
        )

    def command(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of `fedpi-coordinator` to its end."""
        with self.cli(*command) as process:
            out, err = process.communicate(timeout=WAIT_S)
        return subprocess.CompletedProcess(command, process.returncode, out, err)


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
        local = before + step_of(device, number)
        total += (local - before).astype(np.float64) * examples[device]
    return (before.astype(np.float64) + total / float(sum(examples.values()))).astype("<f4").tobytes()


def step_of(device: str, number: int) -> np.float32:
    """Return what fedpi's device adds to every value in round `number`."""
    seed = (SEED + number) * 1_000_003 + int.from_bytes(device.encode(), "big") % 1_000_003
    return np.float32((seed % 1000 + 1) / 1024)


def read_json(payload: bytes) -> dict[str, Any]:
    """Read what people read."""
    document: dict[str, Any] = json.loads(payload)
    return document
