"""install.sh and the units that it puts in place, as far as that can be seen without installing.

tests/machines installs them on machines of their own: `make system-test`.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from broker.settings import ServeConfig
from common.bundle import Identity
from common.config import load

ROOT = Path(__file__).resolve().parents[1]
INSTALL = ROOT / "install.sh"
UNITS = sorted(ROOT.glob("systemd/*.service"))
ROLES = ("broker", "coordinator", "device", "inference")
MAX_EXPOSURE = 2.0


def value(unit: Path, key: str) -> str:
    found = re.findall(rf"^{key}=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{unit.name} has no {key}"
    return str(found[-1])


def test_every_role_has_a_unit_and_watches_its_configuration() -> None:
    assert [unit.stem for unit in UNITS] == [f"fedpi-{role}" for role in ROLES]
    for unit in UNITS:
        needed = value(unit, "ConditionPathExists")
        assert value(unit.with_suffix(".path"), "PathChanged") == needed
        assert str(Path(needed).parent) in value(unit, "ExecStart")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_well_shut_in(unit: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", unit],
        capture_output=True,
        text=True,
        check=True,
    )
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure is not None
    assert float(exposure[1]) <= MAX_EXPOSURE
    assert done.stderr == ""  # where it names keys that it does not know


@pytest.mark.parametrize("unit", [u for u in UNITS if u.stem != "fedpi-broker"], ids=lambda unit: unit.stem)
def test_a_main_loop_that_hangs_is_ended(unit: Path) -> None:
    assert value(unit, "Type") == "notify"
    assert int(value(unit, "WatchdogSec")) >= 30, "an SD card may hold a turn of the loop up for seconds"


@pytest.mark.parametrize(
    ("unit", "role"), [("fedpi-device", "device"), ("fedpi-inference", "device"), ("fedpi-coordinator", "coordinator")]
)
def test_keys_come_as_credentials_under_the_names_that_are_looked_for(unit: str, role: str) -> None:
    text = (ROOT / "systemd" / f"{unit}.service").read_text(encoding="utf-8")
    identity = Identity(Path("/etc/fedpi") / role, role)
    handed = dict(re.findall(r"^LoadCredential=([^:]+):(.*)$", text, re.MULTILINE))
    assert handed == {path.name: str(path) for path in (identity.key, identity.signing_key)}
    assert set(re.findall(r"^SetCredential=([^:]+):\\n$", text, re.MULTILINE)) == set(handed)


def test_nothing_but_the_broker_runs_under_its_account() -> None:
    accounts = {unit.stem: value(unit, "User") for unit in UNITS}
    assert [name for name, account in accounts.items() if account == "fedpi-broker"] == ["fedpi-broker"]
    state = value(ROOT / "systemd/fedpi-broker.service", "StateDirectory")
    assert not state.startswith(f"{value(ROOT / 'systemd/fedpi-coordinator.service', 'StateDirectory')}/")
    assert state == "fedpi-broker/data", "root writes what stands above"


def test_serving_beside_a_device_is_the_devices_command_but_for_serving() -> None:
    beside = value(ROOT / "systemd/serving.conf", "ExecStart")
    assert beside.replace(" --no-serving", "") == value(ROOT / "systemd/fedpi-device.service", "ExecStart")


def test_the_brokers_first_configuration_fits_its_unit() -> None:
    config = load(ROOT / "config/broker-fleet.yaml", ServeConfig)
    assert config.has_tls
    assert str(config.root) == value(ROOT / "systemd/fedpi-broker.service", "WorkingDirectory")
    assert config.coordinator == value(ROOT / "systemd/fedpi-coordinator.service", "ConditionPathExists")


@pytest.mark.parametrize("words", [[], ["nonsense"], ["device", "--purge"], ["--uninstall", "--purge", "device"]])
def test_wrong_use_of_the_installer_is_told(words: list[str]) -> None:
    done = subprocess.run(["bash", INSTALL, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "install.sh" in done.stderr


def test_the_installers_help_names_every_role() -> None:
    told = subprocess.run(["bash", INSTALL, "--help"], capture_output=True, text=True, check=True).stdout
    assert [role for role in ROLES if not re.search(rf"^  {role} ", told, re.MULTILINE)] == []


def test_the_installer_is_free_of_the_shells_traps() -> None:
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("needs shellcheck, which fedpi[dev] installs")
    scripts = [INSTALL, ROOT / ".ci/run", *ROOT.glob("systemd/*.sh")]
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)
    assert done.stdout == ""
