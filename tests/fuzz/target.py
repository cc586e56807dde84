"""One kind of input: how inputs are made from a seed, what reads them, what may come of it."""

import faulthandler
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from common.errors import FedpiError

MOST_SECONDS = 5.0
MOST_MB = 400.0
MOST_FAILURES = 20
"""After so many a target ends: they mostly have one cause."""

Attempt = Callable[[random.Random], None]
"""Makes one input and hands it to the product; any exception but FedpiError is a failure."""


class Failure(msgspec.Struct, frozen=True):
    """An input that raised what it must not, or took too long; `number` makes it again."""

    number: int
    what: str


class Outcome(msgspec.Struct, frozen=True):
    """What became of all inputs of a target. Memory is the peak of the process that read them."""

    target: str
    inputs: int
    refused: int
    seconds: float
    slowest_s: float
    memory_mb: float
    failures: tuple[Failure, ...]

    @property
    def is_good(self) -> bool:
        """Whether every input was read or refused, within time and memory."""
        return not self.failures and self.slowest_s <= MOST_SECONDS and self.memory_mb <= MOST_MB


class Target(msgspec.Struct, frozen=True):
    """`begin` is called once, with a folder of its own, and returns what is called for each input."""

    name: str
    count: int
    begin: Callable[[Path], Attempt]


class _TooLongError(BaseException):
    """Ends an input that takes too long; no `except Exception` of the product catches it."""


def attack(target: Target, seed: int, count: int, folder: Path) -> Outcome:
    """Read `count` inputs in this process; input `number` depends on `seed` and `number` alone."""
    attempt = target.begin(folder)
    failures: list[Failure] = []
    refused, slowest, number, began = 0, 0.0, 0, time.monotonic()
    for number in range(count):
        started = time.monotonic()
        try:
            with _limited():
                attempt(random.Random(f"{target.name} {seed} {number}"))
        except FedpiError as error:
            refused += 1
            if not str(error).strip():
                failures.append(Failure(number, f"{type(error).__name__} without a sentence"))
        except (Exception, _TooLongError) as error:  # noqa: BLE001 - whatever it is, it is what we look for
            failures.append(Failure(number, _describe(error)))
        slowest = max(slowest, time.monotonic() - started)
        if len(failures) == MOST_FAILURES:
            break
    seconds = time.monotonic() - began
    return Outcome(target.name, number + 1, refused, seconds, slowest, _peak_mb(), tuple(failures))


@contextmanager
def _limited() -> Iterator[None]:
    """Raise _TooLongError after the limit; where a library never returns to Python, print where and end the process."""

    def on_alarm(_signal: int, _frame: object) -> None:
        raise _TooLongError(f"took more than {MOST_SECONDS:g} s")

    previous = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, MOST_SECONDS)
    faulthandler.dump_traceback_later(MOST_SECONDS * 4, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _describe(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {str(error)[:200]}{where}"


def _peak_mb() -> float:
    """Peak resident memory of this process since its program began, in MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000
