"""A request to stop under a storm of signals, which arrive at every place of `wait` and of `set`."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from common.stopping import Stop

ROOT = Path(__file__).parents[2]
STORM = """
import signal
from common.stopping import Stop
stop = Stop()
count = 0
def interrupt(*_):
    global count
    count += 1
    {handler}
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.00005, 0.00005)
while count < 3000:
    stop.wait(0)
    stop.set()
signal.setitimer(signal.ITIMER_REAL, 0)
print(stop.is_set())
"""


@pytest.mark.parametrize("handler", ["stop.set()", "stop.wait(0)"])
def test_signal_at_any_place_does_not_wait_for_itself(handler: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STORM.format(handler=handler)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_waits_in_vain_without_a_request() -> None:
    stop = Stop()
    assert not stop.wait(0.001)
    assert not stop.is_set()


def test_request_of_another_thread_ends_the_wait_and_stays() -> None:
    stop = Stop()
    other = threading.Timer(0.01, stop.set)
    other.start()
    assert stop.wait(30)
    other.join()
    assert stop.wait(0)
