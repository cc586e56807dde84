"""A federation behind the proxy, and rounds in it that are held against the oracle."""

import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from common.errors import FedpiError
from common.messages import Ref
from common.plan import RoundPlan
from coordinator.config import CoordinatorConfig, read_config
from coordinator.rehearsal.federation import Federation, Process
from coordinator.store import RoundRow, Store
from tests.conftest import find_ports
from tests.faults import brokers, identities, oracle
from tests.faults.passing import BULK, CONTROL, COORDINATOR
from tests.faults.plants import PLANTED
from tests.faults.proxy import Proxy

EXAMPLES: Mapping[str, int] = {"rpi1": 7, "rpi2": 30, "rpi3": 11, "rpi4": 23, "rpi5": 2}
DEVICES = tuple(EXAMPLES)
UNHURRIED_S = 60.0
"""Deadline of the first round: the trainers start in it, which takes a busy machine longer than a row's deadline."""
SEED = 11
"""Of the trainings."""
WAIT_S = 90.0
"""Long beside everything that a row waits for, and short of a hang."""
USUAL_WARNINGS = (
    r"link=(control|bulk) down: ",
    r"refused=\d+ topic=",  # a message that came too late, or twice
)


class SkippedError(FedpiError):
    """A fault cannot be injected here; the message says why, and what is missing."""


class NotSurvivedError(FedpiError):
    """What must hold after a fault does not."""

    exit_code = 70


@dataclass(frozen=True)
class Setup:
    """How a federation is configured. Rows of equal setups may share one."""

    broker: str = "mosquitto"
    broker_settings: tuple[tuple[str, str], ...] = ()
    """Lines of mosquitto.conf, as name and value, in place of those that fedpi renders."""
    parameters: int = 800_000
    """Of the model, in float32."""
    sleep_s: float = 0.0
    """How long a training lasts."""
    chunk_bytes: int = 32_768
    credit_chunks: int = 20
    window_chunks: int = 500
    repair_s: float = 0.5
    repair_max_s: float = 4.0
    keepalive_s: int = 5
    minimum: int = 3
    deadline_s: float = 120.0
    """In force after the undisturbed round, as `grace_s` is."""
    grace_s: float = 30.0
    round: tuple[tuple[str, Any], ...] = ()
    """Further keys of the coordinator's `round` section."""
    device: tuple[tuple[str, Any], ...] = ()
    """Further sections of every device's configuration."""
    is_signed: bool = False
    """Whether everybody signs."""

    @property
    def model_bytes(self) -> int:
        """Size of the model."""
        return 4 * self.parameters

    @property
    def transfer(self) -> dict[str, Any]:
        """The `transfer` section of every configuration."""
        names = ("chunk_bytes", "credit_chunks", "window_chunks", "repair_s", "repair_max_s")
        return {name: getattr(self, name) for name in names}


class Arena(Federation):
    """A broker, the proxy before it, a coordinator and five devices of the numpy model.

    `arena = Arena(folder, Setup()).begin()`, then `arena.open()` for every round or run of rounds, `arena.close()`.
    """

    def __init__(self, folder: Path, setup: Setup) -> None:
        super().__init__(folder)
        self.setup = setup
        self.port = find_ports(2)
        self.proxy = Proxy(self.port, self.port + 1)
        self.examples = dict(EXAMPLES)
        self.seed = 0
        """The seed of the injection that is under way: for rows that walk through a list of places."""
        self.signing: dict[str, dict[str, Any]] = {}
        """The `signing` sections by name, where everybody signs."""
        self.store: Store

    @property
    def broker(self) -> dict[str, Any]:
        """The `broker` section of every configuration: the proxy."""
        return {"host": "127.0.0.1", "port": self.proxy.port, "keepalive_s": self.setup.keepalive_s}

    def begin(self) -> Self:
        """Start everything and wait until it is online; `close` ends it, also where this fails."""
        self.restart_broker()
        if self.setup.is_signed:
            self.signing = identities.make(self.folder / "identities", self.port, self.examples)
        self.proxy.start()
        self.start_coordinator(self.coordinator_options())
        for device in self.examples:
            self.start_device(device, self.device_options(device))
        # Not before: who opens the journal while the coordinator makes it may find it locked.
        self.until(lambda: "link=control up" in self.logged(COORDINATOR, {}), "the coordinator's connection")
        self.store = self.open_store(WAIT_S)
        self.settle()
        return self

    def _start(self, name: str, command: list[str]) -> Process:
        if os.environ.get(PLANTED) and name != "broker":  # the launcher plants it
            (self.folder / "planted" / name).mkdir(parents=True, exist_ok=True)
            command = ["tests.faults.launcher", str(self.folder / "planted" / name), *command]
        return super()._start(name, command)

    def close(self) -> None:
        """Kill every process: an orderly end would wait for lines that a fault has cut."""
        for process in self.processes.values():
            process.kill()
        self.proxy.stop()

    def restart_broker(self) -> None:
        """Start the broker, for the first time or again."""
        brokers.start(self, self.setup.broker, dict(self.setup.broker_settings))

    def coordinator_options(self) -> dict[str, Any]:
        """Return the coordinator's configuration beside federation, state and broker."""
        setup = self.setup
        options = {"tensors": 7, "parameters": setup.parameters, "work": "noise", "sleep_s": setup.sleep_s}
        return {
            "model": {"name": "numpy", "options": options},
            "training": {"seed": SEED, "epochs": 1, "evaluate": False},
            "transfer": setup.transfer,
            **self._signing(COORDINATOR),
            "round": {
                "goal": len(self.examples),
                "minimum": setup.minimum,
                "deadline_s": UNHURRIED_S,
                **dict(setup.round),
            },
        }

    def device_options(self, device: str) -> dict[str, Any]:
        """Return a device's configuration beside federation, device, state and broker."""
        data = {"loader": "common.learning.numpy_learner:no_images", "options": {"count": self.examples[device]}}
        return {
            "data": data,
            "serving": {"process": "off"},
            "trainer": {"niceness": 0},  # what starves politely on a busy machine misses its deadline
            "transfer": self.setup.transfer,
            **self._signing(device),
            **dict(self.setup.device),
        }

    def _signing(self, name: str) -> dict[str, Any]:
        return {"signing": self.signing[name]} if self.signing else {}

    # ---- rounds ---------------------------------------------------------------------------------

    def open(self, rounds: int = 1) -> "Trial":
        """Ask for rounds; the coordinator opens the first of them within a quarter of a second."""
        trial = Trial(self, self.store.last_round() + 1, rounds, self.model(), self.options, self.log_sizes())
        self.store.ask_for(rounds)
        return trial

    def model(self) -> bytes:
        """Return the bytes of the global model."""
        return self.body(self._model_id()).read_bytes()

    def plan(self, number: int) -> RoundPlan:
        """Return what devices train in a round."""
        return plan_of(self.options, number)

    @property
    def options(self) -> CoordinatorConfig:
        """The coordinator's configuration."""
        return read_config(self.config(COORDINATOR))

    # ---- looking on -----------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until everybody lives, is connected and known as online, and holds the global model."""
        links = {(party, link) for party in (COORDINATOR, *self.examples) for link in (CONTROL, BULK)}

        def missing() -> list[str]:
            states = {row.device: row.state for row in self.store.devices()}
            model = self._model_id()
            return [
                *(f"the {link} link of {party}" for party, link in sorted(links - self.proxy.connected())),
                *(f"{device} online" for device in self.examples if states.get(device) != "online"),
                *(f"the model at {device}" for device in self.examples if not self.has_model(device, model)),
                *(["the end of the run"] if self.store.active_run() else []),
                *([] if self.proxy.is_served() else ["a coordinator that serves"]),
            ]

        self.until(lambda: not missing(), lambda: f"everything in order; missing: {', '.join(missing())}")

    def has_model(self, device: str, model: str) -> bool:
        """Whether a device holds a global model."""
        return (self.folder / device / "models" / f"{model}.body").exists()

    def until(self, is_so: Callable[[], object], what: str | Callable[[], str], timeout_s: float = WAIT_S) -> None:
        """Wait until `is_so` returns something true. Raises NotSurvivedError, WorkError if a process ended."""
        end = time.monotonic() + timeout_s
        while not is_so():
            self.check()
            if time.monotonic() > end:
                sentence = what if isinstance(what, str) else what()
                raise NotSurvivedError(f"waited {timeout_s:g} s in vain for {sentence}")
            time.sleep(0.01)

    def state(self, device: str) -> str:
        """Return what the coordinator takes a device for: online or offline."""
        return next((row.state for row in self.store.devices() if row.device == device), "")

    def log_sizes(self) -> dict[Path, int]:
        """Return how long every log is now."""
        return {path: path.stat().st_size for path in (self.folder / "logs").glob("*.log")}

    def logged(self, name: str, since: Mapping[Path, int]) -> str:
        """Return what a process has logged since `log_sizes`."""
        path = self.folder / "logs" / f"{name}.log"
        return path.read_bytes()[since.get(path, 0) :].decode(errors="replace") if path.exists() else ""

    def check_logs(self, since: Mapping[Path, int], expected: Collection[str] = ()) -> None:
        """Raise NotSurvivedError for a traceback, or a warning that is neither usual nor one of `expected`."""
        allowed = re.compile("|".join([*USUAL_WARNINGS, *expected]))
        for path in (self.folder / "logs").glob("*.log"):
            text = self.logged(path.stem, since)
            if "Traceback" in text:
                raise NotSurvivedError(f"{path.stem} logged a traceback (log: {path})")
            for line in text.splitlines():
                if re.search(r" level=(WARNING|ERROR|CRITICAL) ", line) and not allowed.search(line):
                    raise NotSurvivedError(f"{path.stem} logged what nobody expected: {line}")

    @property
    def chunk_bytes(self) -> int:
        """Size of the global model's chunks: the setup's, or what the broker carries."""
        return self._model().chunk_bytes

    def _model_id(self) -> str:
        return self._model().id

    def _model(self) -> Ref:
        ref = self.store.global_model()
        assert ref is not None  # open_store has waited for it
        return ref


@dataclass
class Trial:
    """Rounds that were asked for, from the model `base`."""

    arena: Arena
    first: int
    rounds: int
    base: bytes
    options: CoordinatorConfig
    """The coordinator's configuration by then."""
    since: Mapping[Path, int]
    """How long the logs were by then: numbers of rounds come again after a restore."""
    ids: list[tuple[str, str, str]] = field(default_factory=list)
    """Of every committed round that was checked: ids of base, new model and the oracle's model."""
    may_tell_again: bool = False
    """Whether a power cut may have taken from the journal what the log tells already."""

    def finish(self, must_count: Collection[str] | None = None, timeout_s: float = WAIT_S) -> float:
        """Wait for the rounds to close and hold them against the oracle; returns when the last one closed, in Unix s.

        Every committed round must equal the oracle's for exactly the devices that its ledger counts, and count those
        of `must_count`: all five by default. A void round passes only where nobody must be counted, and says why.
        Raises NotSurvivedError.
        """
        arena = self.arena
        arena.until(lambda: arena.store.active_run() is None, "the end of the run", timeout_s)
        rows = arena.store.rounds(self.first - 1)
        if [row.round for row in rows] != list(range(self.first, self.first + self.rounds)):
            raise NotSurvivedError(f"the run has the rounds {[row.round for row in rows]}, from {self.first} on asked")
        base = self.base
        for row in rows:
            base = self._check(row, base, set(arena.examples if must_count is None else must_count))
        if arena.model() != base:
            raise NotSurvivedError(f"the global model after round {rows[-1].round} is not the oracle's")
        return rows[-1].closed or 0.0

    def _check(self, row: RoundRow, base: bytes, must_count: set[str]) -> bytes:
        """Hold one round against the oracle; returns the global model after it."""
        if row.phase != "committed":
            if must_count or not row.reason:
                raise NotSurvivedError(f"round {row.round} is {row.phase}: {row.reason or 'it does not say why'}")
            return base
        if absent := must_count - set(row.reported):
            ledger = {e.device: f"{e.standing} {e.reason}" for e in self.arena.store.ledger(row.round)}
            raise NotSurvivedError(f"round {row.round} does not count {', '.join(sorted(absent))}: {ledger}")
        self._check_ledger(row)
        plan, chunk_bytes = plan_of(self.options, row.round), self.arena.chunk_bytes
        after = oracle.next_model(base, plan, {device: self.arena.examples[device] for device in row.reported})
        ids = [oracle.blob_id(body, plan.model, chunk_bytes) for body in (base, after)]
        if row.model != ids[1]:
            raise NotSurvivedError(f"round {row.round} made model {row.model[:8]}; the oracle makes {ids[1][:8]}")
        self.ids.append((ids[0], row.model, ids[1]))
        return after

    def _check_ledger(self, row: RoundRow) -> None:
        counted = sorted(e.device for e in self.arena.store.ledger(row.round) if e.standing == "reported")
        if counted != sorted(row.reported) or len(set(counted)) != len(counted):
            raise NotSurvivedError(f"round {row.round} counted {list(row.reported)}; its ledger says {counted}")
        told = re.findall(rf"Round {row.round}: (\S+) delivered its update", self.arena.logged(COORDINATOR, self.since))
        if len(set(told)) != len(told) and not self.may_tell_again:
            raise NotSurvivedError(f"round {row.round} counted an update twice: {told}")


def plan_of(options: CoordinatorConfig, number: int) -> RoundPlan:
    """Return what devices train in a round, as far as the configuration says it."""
    return options.plan(number, "0", Ref(id="0" * 64, head_bytes=1, size=0, chunk_bytes=4096))
