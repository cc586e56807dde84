"""Two processes with one device's name: whatever overtakes what, exactly one is told to end."""

import base64
import contextlib
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.authority import new_signing_key
from common import topics
from common.config import SigningConfig
from common.messages import Hello, Takeover, encode
from common.signing import ReplayedError, Signer
from common.topics import Kind, topic
from coordinator.reception import Reception
from coordinator.store import Store
from coordinator.twins import KEPT, Twins

SAY = topic(Kind.DEV_SAY, "demo", device="pi")
Move = tuple[str, str]


@dataclass
class Process:
    """As much of a device as answers a Takeover: by a Hello, and by its end where the same one took over before."""

    nonce: str
    signer: Signer = field(default_factory=lambda: Signer(None))
    said: deque[bytes] = field(default_factory=deque)
    told: deque[Takeover] = field(default_factory=deque)
    rivals: set[str] = field(default_factory=set)
    is_over: bool = False

    def hello(self) -> None:
        if not self.is_over:
            self.said.append(self.signer.wire(SAY, encode(Hello(device="pi", nonce=self.nonce))))

    def read(self) -> None:
        takeover = self.told.popleft()
        if self.is_over or takeover.nonce != self.nonce:
            return
        self.is_over = takeover.by in self.rivals
        self.rivals.add(takeover.by)
        self.hello()


@dataclass
class Room:
    """Two processes and a coordinator; messages wait until somebody reads them."""

    reception: Reception
    processes: dict[str, Process]

    def admit(self, name: str) -> None:
        hello, takeover = self.processes[name].said.popleft(), None
        with contextlib.suppress(ReplayedError):
            takeover = self.reception.admit(topics.parse(SAY), hello, None).takeover
        for process in self.processes.values():
            if takeover is not None:
                process.told.append(takeover)

    def move(self, what: str, name: str) -> None:
        process = self.processes[name]
        if what == "hello":
            process.hello()
        elif what == "admit" and process.said:
            self.admit(name)
        elif what == "read" and process.told:
            process.read()

    def settle(self) -> None:
        """Let both say Hello once more, and everything arrive."""
        for process in self.processes.values():
            process.hello()
        while any(process.said or process.told for process in self.processes.values()):
            for name in self.processes:
                self.move("admit", name)
            for name in self.processes:
                self.move("read", name)


@pytest.fixture
def signing(tmp_path: Path) -> SigningConfig:
    private, public = new_signing_key()
    (tmp_path / "key").write_text(private)
    (tmp_path / "peers").write_text(f"pi {base64.b64encode(public).decode()}\n")
    return SigningConfig(key=str(tmp_path / "key"), peers=str(tmp_path / "peers"))


moves = st.tuples(st.sampled_from(["hello", "admit", "read"]), st.sampled_from(["a", "b"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.lists(moves, max_size=40))
def test_of_two_that_say_hello_at_any_time_exactly_one_ends(journal: Store, history: list[Move]) -> None:
    room = Room(Reception("demo", journal), {name: Process(f"{name}0") for name in ("a", "b")})
    for what, name in history:
        room.move(what, name)
    for _ in range(2):
        room.settle()
    assert sorted(process.is_over for process in room.processes.values()) == [False, True]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.lists(moves, max_size=40), st.sampled_from([(1, 1), (1, 2), (2, 1)]))
def test_of_two_that_sign_with_one_key_exactly_one_ends_whatever_their_epochs(
    journal: Store, signing: SigningConfig, history: list[Move], epochs: tuple[int, int]
) -> None:
    """The same epoch, as of machines that were copied and are switched on in the same second, too."""
    signers = [Signer(signing, epoch) for epoch in epochs]
    processes = {name: Process(f"{name}0", signer) for name, signer in zip("ab", signers, strict=True)}
    room = Room(Reception("demo", journal, signing), processes)
    for what, name in history:
        room.move(what, name)
    for _ in range(4):
        room.settle()
    assert sorted(process.is_over for process in room.processes.values()) == [False, True]


def test_both_said_hello_thrice_before_either_was_told(journal: Store) -> None:
    """As on a machine that was copied, when both are switched on at once: each says Hello before what it repeats."""
    room = Room(Reception("demo", journal), {name: Process(f"{name}0") for name in ("a", "b")})
    for _ in range(3):
        for name in ("a", "b"):
            room.move("hello", name)
    for _ in range(3):
        for name in ("a", "b"):
            room.admit(name)
    room.settle()
    assert [process.is_over for process in room.processes.values()] == [True, False]
    assert room.reception.present == {"pi"}


def test_who_is_out_is_told_as_often_as_it_speaks_and_the_other_one_no_second_time() -> None:
    twins = Twins()
    told = Counter(
        bool(twins.tell("pi", *pair)) for pair in (("a", "b"), ("b", "a"), ("a", "b"), ("b", "a"), ("a", "b"))
    )
    assert told == {True: 4, False: 1}
    twins.forget("pi")
    assert twins.tell("pi", "b", "a") is not None


def test_a_device_that_makes_up_connections_takes_no_memory() -> None:
    twins = Twins()
    for number in range(10 * KEPT):
        assert twins.tell("pi", f"{number:x}", f"{number + 1:x}") is not None
    assert len(twins._told["pi"]) <= KEPT  # noqa: SLF001 - what it keeps is the point
