"""The request to stop, which a signal makes and a loop looks at.

A `threading.Event` would do but for its lock, which is not reentrant: a signal that arrives while the
main thread holds it, in `wait` or in an earlier signal's `set`, would wait for itself for ever.
"""

import os
import select
import signal
import weakref


class Stop:
    """Set once, for good; `set` is safe in a signal handler and from any thread."""

    def __init__(self) -> None:
        self._is_set = False
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._alarm)

    def set(self) -> None:
        """Ask to stop; whoever waits returns."""
        if not self._is_set:
            self._is_set = True
            os.eventfd_write(self._alarm, 1)

    def is_set(self) -> bool:
        """Whether stopping was asked for."""
        return self._is_set

    def wait(self, timeout_s: float) -> bool:
        """Return whether stopping was asked for, after `timeout_s` at the latest."""
        alarm = select.poll()
        alarm.register(self._alarm, select.POLLIN)
        alarm.poll(timeout_s * 1000)
        return self._is_set


def stop_on(*numbers: signal.Signals) -> Stop:
    """Return a request that these signals make; call it from the main thread."""
    stop = Stop()
    for number in numbers:
        signal.signal(number, lambda *_: stop.set())
    return stop
