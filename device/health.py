"""Reads how this machine is, from sysfs and psutil: no root, no tool of the Pi's. What is not there is None."""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import psutil

from common.health import Flag, Health

CLOCK_PERIOD_S = 600.0
"""How often systemd is asked whether the clock is right: asking starts a service."""
CLOCK_TIMEOUT_S = 5.0
_FLAGS: dict[int, Flag] = {
    0: "under-voltage",
    1: "frequency-capped",
    2: "throttled",
    3: "temperature-limited",
    16: "was-under-voltage",
    17: "was-frequency-capped",
    18: "was-throttled",
    19: "was-temperature-limited",
}
"""By bit of the firmware's answer to "get_throttled"."""
_CARD_STATES: dict[int, Literal["normal", "warning", "urgent"]] = {1: "normal", 2: "warning", 3: "urgent"}


class HealthWatch:
    """Reads the health of this machine again and again, in a thread of its own: some of it takes its time.

    `deliver` is called from that thread. `folder` is where the device keeps its state, `root` that of the file system.
    """

    def __init__(
        self, folder: Path, deliver: Callable[[Health], None], period_s: float, root: Path = Path("/")
    ) -> None:
        self._folder = folder
        self._deliver = deliver
        self._period_s = period_s
        self._root = root
        self._stop = threading.Event()
        self._is_clock_right: bool | None = None
        self._next_clock = 0.0

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="health", daemon=True).start()

    def stop(self) -> None:
        """End; a reading that is under way is the last one."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._deliver(read_health(self._root, self._folder, clock=self._clock()))
            self._stop.wait(self._period_s)

    def _clock(self) -> bool | None:
        if is_timesyncd_right(self._root):
            return True
        now = time.monotonic()
        if now >= self._next_clock:
            self._next_clock = now + CLOCK_PERIOD_S
            self._is_clock_right = ask_timedatectl()
        return self._is_clock_right


def read_health(root: Path, folder: Path, *, clock: bool | None = None) -> Health:
    """Read the health of the machine whose `sys` lies in `root`; `clock`: whether its clock is synchronised."""
    life_used, state = _card(root)
    return Health(
        temperature_c=_temperature(root),
        flags=_flags(root),
        memory_free_bytes=_memory(),
        disk_free_bytes=_disk(folder),
        load=_load(),
        card_life_used=life_used,
        card_state=state,
        clock_synchronised=clock,
    )


def is_timesyncd_right(root: Path) -> bool:
    """Whether systemd-timesyncd, the clock's keeper on Raspberry Pi OS, has set it since the boot."""
    with contextlib.suppress(OSError):
        return (root / "run/systemd/timesync/synchronized").exists()
    return False


def ask_timedatectl() -> bool | None:
    """Ask systemd, which knows of chrony and ntpd as well. The kernel itself would not tell a sandboxed service."""
    command = ["timedatectl", "show", "--property=NTPSynchronized", "--value"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CLOCK_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {"yes": True, "no": False}.get(done.stdout.strip())


# ---- one function a figure ------------------------------------------------------------------


def _temperature(root: Path) -> float | None:
    """Return the hottest zone of the kernel; a Pi has one, its processor's."""
    milli = _numbers(root.glob("sys/class/thermal/thermal_zone*/temp"))
    # A sensor that is switched off reads as absolute zero or as the largest number.
    return max((round(value / 1000, 1) for value in milli if -100_000 <= value <= 300_000), default=None)


def _flags(root: Path) -> tuple[Flag, ...] | None:
    """Return what the Pi's firmware reports; a kernel without its driver knows of the voltage only."""
    for bits in _numbers(root.glob("sys/devices/platform/soc*/*firmware/get_throttled"), base=16):
        return tuple(flag for bit, flag in _FLAGS.items() if bits >> bit & 1)
    monitors = [path.parent for path in root.glob("sys/class/hwmon/hwmon*/name") if _read(path) == "rpi_volt"]
    for alarm in _numbers(path / "in0_lcrit_alarm" for path in monitors):
        return ("under-voltage",) if alarm else ()
    return None


def _memory() -> int | None:
    try:
        return int(psutil.virtual_memory().available)
    except (OSError, psutil.Error, RuntimeError, ValueError, LookupError):  # what /proc lacks, psutil says in many ways
        return None


def _disk(folder: Path) -> int | None:
    with contextlib.suppress(OSError):
        return int(psutil.disk_usage(str(folder)).free)
    return None


def _load() -> float | None:
    with contextlib.suppress(OSError):
        return round(os.getloadavg()[0] / (os.cpu_count() or 1), 2)
    return None


def _card(root: Path) -> tuple[float | None, Literal["normal", "warning", "urgent"] | None]:
    """Return the worst card's used life and state. Cards that are soldered tell it, few that are plugged in do."""
    # "0x02 0x01": tenths of the life of either kind of memory, the upper end; 0 tells nothing.
    tenths = _numbers(root.glob("sys/block/mmcblk*/device/life_time"), base=16)
    states = _numbers(root.glob("sys/block/mmcblk*/device/pre_eol_info"), base=16)
    worst = max((tenth for tenth in tenths if 1 <= tenth <= 11), default=None)
    state = max((number for number in states if number in _CARD_STATES), default=None)
    return None if worst is None else worst / 10, None if state is None else _CARD_STATES[state]


def _numbers(paths: Iterable[Path], base: int = 10) -> Iterator[int]:
    """Read all numbers of all files that can be read."""
    for path in paths:
        for word in (_read(path) or "").split():
            with contextlib.suppress(ValueError):
                yield int(word, base)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
