"""The serving process as the daemon sees it: started once a release is installed, started again when it ends."""

import contextlib
import logging
import subprocess

import msgspec

from common.journal import tags
from common.python import child_command
from device.config import DeviceConfig
from device.jobs import cause_of
from device.store import current_release

log = logging.getLogger(__name__)

WAIT_S = 1.0
WAIT_MAX_S = 60.0
STEADY_S = 60.0
"""A child that lived this long is not one that fails at its start: the wait is short again."""
STOP_S = 5.0


class ServingChild:
    """Keeps at most one child. It ends with this process, however this process ends: its stdin is our pipe."""

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config
        self._child: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at = 0.0
        self._wait_s = 0.0

    def tick(self, now: float) -> str | None:
        """Start what is to run at `now` in monotonic seconds; returns a sentence if the child has ended by itself."""
        if self._child is None:
            if now >= self._start_at:
                self._start(now)
            return None
        code = self._child.poll()
        if code is None:
            return None
        self._child = None
        is_steady = now - self._started_at >= STEADY_S
        self._wait_s = WAIT_S if is_steady else min(max(2 * self._wait_s, WAIT_S), WAIT_MAX_S)
        self._start_at = now + self._wait_s
        text = f"The serving process ended by itself ({cause_of(code)}); it starts again in {self._wait_s:g} s."
        log.error("%s", text, extra=tags("serving-ended", device=self._config.device))
        return text

    def stop(self) -> None:
        """End the child in order; by force when it takes too long."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None  # noqa: S101 - _start asks for the pipe
        with contextlib.suppress(OSError):
            child.stdin.close()
        try:
            child.wait(STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _start(self, now: float) -> None:
        if self._config.serving.process == "off" or current_release(self._config.folder) is None:
            self._start_at = now + WAIT_S
            return
        self._child = subprocess.Popen(child_command("device.serving"), stdin=subprocess.PIPE)
        self._started_at = now
        assert self._child.stdin is not None  # noqa: S101 - asked for above
        with contextlib.suppress(OSError):  # a child that is gone is found by the next tick
            self._child.stdin.write(msgspec.json.encode(self._config) + b"\n")
            self._child.stdin.flush()
        log.info("serving started pid=%d", self._child.pid)
