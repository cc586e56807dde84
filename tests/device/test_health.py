"""What a machine tells of its health, from files as a Raspberry Pi has them, and what fitness makes of it."""

import queue
from pathlib import Path

import pytest

from common.health import Health
from device.config import HealthConfig
from device.fitness import COOLED_C, MB, unfitness
from device.health import HealthWatch, ask_timedatectl, is_timesyncd_right, read_health

THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
LIFE, PRE_EOL = "sys/block/mmcblk0/device/life_time", "sys/block/mmcblk0/device/pre_eol_info"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def read(root: Path, **files: str) -> Health:
    return read_health(machine(root, files), root)


def test_a_pi_tells_all_that_it_knows(tmp_path: Path) -> None:
    files = {
        "sys/class/thermal/thermal_zone0/temp": "55844\n",
        THROTTLED: "50005\n",
        LIFE: "0x02 0x03\n",
        PRE_EOL: "0x01\n",
    }
    health = read_health(machine(tmp_path, files), tmp_path, clock=True)
    assert health.temperature_c == 55.8
    assert health.flags == ("under-voltage", "throttled", "was-under-voltage", "was-throttled")
    assert (health.card_life_used, health.card_state) == (0.3, "normal")
    assert health.clock_synchronised
    assert health.memory_free_bytes
    assert health.disk_free_bytes
    assert health.load is not None


def test_a_pc_has_no_firmware_and_no_card(tmp_path: Path) -> None:
    health = read_health(tmp_path, tmp_path)
    assert (health.temperature_c, health.flags, health.card_life_used, health.card_state) == (None,) * 4
    assert health.clock_synchronised is None


@pytest.mark.parametrize(
    ("bits", "flags"),
    [
        ("0", ()),
        ("1", ("under-voltage",)),
        ("f", ("under-voltage", "frequency-capped", "throttled", "temperature-limited")),
        ("80008", ("temperature-limited", "was-temperature-limited")),
        ("20000", ("was-frequency-capped",)),
        ("fffffff0", ("was-under-voltage", "was-frequency-capped", "was-throttled", "was-temperature-limited")),
    ],
)
def test_every_bit_of_the_firmware_has_a_name(tmp_path: Path, bits: str, flags: tuple[str, ...]) -> None:
    assert read(tmp_path, **{THROTTLED: f"{bits}\n"}).flags == flags


def test_the_firmware_of_a_newer_pi_stands_elsewhere(tmp_path: Path) -> None:
    name = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
    assert read(tmp_path, **{name: "4\n"}).flags == ("throttled",)


@pytest.mark.parametrize(("alarm", "flags"), [("1", ("under-voltage",)), ("0", ())])
def test_a_kernel_without_the_firmwares_file_knows_of_the_voltage(
    tmp_path: Path, alarm: str, flags: tuple[str, ...]
) -> None:
    hwmon = "sys/class/hwmon"
    files = {
        f"{hwmon}/hwmon0/name": "cpu_thermal",
        f"{hwmon}/hwmon0/in0_lcrit_alarm": "1",
        f"{hwmon}/hwmon1/name": "rpi_volt\n",
        f"{hwmon}/hwmon1/in0_lcrit_alarm": f"{alarm}\n",
    }
    assert read(tmp_path, **files).flags == flags


def test_the_hottest_zone_counts_and_sensors_that_are_off_do_not(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone{}/temp"
    temperatures = ["40000", "61250", "-274000", "2147483647", "nonsense", ""]
    files = {zone.format(number): text for number, text in enumerate(temperatures)}
    assert read(tmp_path, **files).temperature_c == 61.2


@pytest.mark.parametrize(
    ("life", "pre_eol", "expected"),
    [
        ("0x00 0x00", "0x00", (None, None)),
        ("0x01 0x00", "0x02", (0.1, "warning")),
        ("0x0b 0x01", "0x03", (1.1, "urgent")),
        ("garbage", "0x7f", (None, None)),
    ],
)
def test_a_cards_life_is_the_worse_of_its_two_kinds_of_memory(
    tmp_path: Path, life: str, pre_eol: str, expected: tuple[float | None, str | None]
) -> None:
    health = read(tmp_path, **{LIFE: life, PRE_EOL: pre_eol})
    assert (health.card_life_used, health.card_state) == expected


def test_a_folder_that_is_gone_has_no_free_disk(tmp_path: Path) -> None:
    assert read_health(tmp_path, tmp_path / "gone").disk_free_bytes is None


@pytest.mark.parametrize("meminfo", [None, "", "MemTotal: 1 kB\n", "MemFree: lots\n"])
def test_memory_that_proc_does_not_tell_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meminfo: str | None
) -> None:
    if meminfo is not None:
        (tmp_path / "meminfo").write_text(meminfo)
    monkeypatch.setattr("psutil.PROCFS_PATH", str(tmp_path))
    health = read_health(tmp_path, tmp_path)
    assert health.memory_free_bytes is None
    assert health.disk_free_bytes


def test_the_keeper_of_the_clock_leaves_a_mark(tmp_path: Path) -> None:
    assert not is_timesyncd_right(tmp_path)
    assert is_timesyncd_right(machine(tmp_path, {"run/systemd/timesync/synchronized": ""}))


@pytest.mark.parametrize(("answer", "expected"), [("yes", True), ("no", False), ("", None)])
@pytest.mark.process
def test_systemd_is_asked_about_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, expected: bool | None
) -> None:
    program = tmp_path / "timedatectl"
    program.write_text(f"#!/bin/sh\necho {answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert ask_timedatectl() is expected


@pytest.mark.process
def test_without_systemd_nobody_knows_about_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ask_timedatectl() is None


def test_the_watch_reads_at_once_and_ends(tmp_path: Path) -> None:
    found: queue.SimpleQueue[Health] = queue.SimpleQueue()
    root = machine(tmp_path, {THROTTLED: "4\n", "run/systemd/timesync/synchronized": ""})
    watch = HealthWatch(tmp_path, found.put, 15.0, root)
    watch.start()
    health = found.get(timeout=10)
    watch.stop()
    assert (health.flags, health.clock_synchronised) == (("throttled",), True)


# ---- fitness --------------------------------------------------------------------------------

DEFAULTS = HealthConfig()
NEVER = HealthConfig(max_temperature_c=None, min_memory_mb=None, min_disk_mb=None, sit_out_when_throttled=False)
BAD = {
    "too hot; its limit is 80 °C": Health(temperature_c=80.0),
    "its power supply is too weak": Health(flags=("under-voltage",)),
    "its processor is throttled": Health(flags=("throttled",)),
    "less than 200 MB of memory are free": Health(memory_free_bytes=200 * MB - 1),
    "less than 200 MB of disk are free": Health(disk_free_bytes=0),
}


@pytest.mark.parametrize(("reason", "health"), BAD.items())
def test_each_limit_makes_a_device_sit_out_unless_it_is_lifted(reason: str, health: Health) -> None:
    assert unfitness(health, DEFAULTS) == reason
    assert unfitness(health, NEVER) == ""


@pytest.mark.parametrize(
    "health",
    [
        Health(),
        Health(temperature_c=79.9, memory_free_bytes=200 * MB, disk_free_bytes=200 * MB, flags=()),
        Health(flags=("frequency-capped", "temperature-limited", "was-under-voltage", "was-throttled")),
    ],
)
def test_what_is_within_the_limits_or_unknown_or_past_keeps_nobody_away(health: Health) -> None:
    assert unfitness(health, DEFAULTS) == ""


def test_a_device_that_was_too_hot_cools_down_before_it_comes_back() -> None:
    warm = Health(temperature_c=80.0 - COOLED_C)
    assert unfitness(warm, DEFAULTS) == ""
    hot = unfitness(Health(temperature_c=85.0), DEFAULTS)
    assert unfitness(warm, DEFAULTS, hot) == hot
    assert unfitness(warm, DEFAULTS, "its processor is throttled") == ""
    assert unfitness(Health(temperature_c=74.9), DEFAULTS, hot) == ""
