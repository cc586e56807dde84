"""The commands: what they print, for people and for programs, and how they end."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from click.testing import CliRunner, Result

from coordinator import following
from coordinator.cli import main
from coordinator.config import CoordinatorConfig, read_config
from coordinator.dataset.split import SplitReport
from coordinator.dataset.synthetic import draw_slices
from coordinator.lock import serving
from coordinator.round_state import Round
from coordinator.store import DeviceRow, Store
from coordinator.views import RoundView, StatusView

Play = Callable[..., Round]
Answer = Callable[..., None]
ROOT = Path(__file__).parents[2]
COMMANDS = ("serve", "start", "stop", "status", "devices", "rounds", "watch", "export", "split")
BOTH = {"rpi1": {"loss": 0.3}, "rpi2": {"loss": 0.6}}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def words(text: str) -> list[str]:
    """Lines with the padding of tables taken out."""
    return [" ".join(line.split()) for line in text.splitlines()]


# ---- what all of them owe -------------------------------------------------------------------


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != "split"])
def test_missing_configuration_is_one_sentence(command: str, tmp_path: Path) -> None:
    result = run(command, "--config", tmp_path / "none.yaml")
    assert result.exit_code == 78
    assert re.fullmatch(r"main: .*none\.yaml: cannot read the configuration: .*\n", result.stderr)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in {"serve", "watch", "split"}])
def test_coordinator_that_was_never_served_is_one_sentence(command: str, config_path: Path) -> None:
    result = run(command, "--config", config_path)
    assert result.exit_code == 78
    assert "does not exist: start the coordinator there first" in result.stderr


def test_journal_that_is_none_is_one_sentence(config: CoordinatorConfig, config_path: Path) -> None:
    config.folder.mkdir()
    config.journal.write_bytes(b"no database" * 100)
    result = run("status", "--config", config_path)
    assert result.exit_code == 65
    assert "journal.sqlite: the journal is damaged: file is not a database; put it back" in result.stderr


def test_second_coordinator_on_a_folder_is_refused(config: CoordinatorConfig, config_path: Path) -> None:
    with serving(config.folder):
        result = run("serve", "--config", config_path)
    assert result.exit_code == 78
    assert "another coordinator runs on" in result.stderr


# ---- start and stop -------------------------------------------------------------------------


@pytest.fixture
def answer(config: CoordinatorConfig, play: Play, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answer]:
    """Serve the folder; `answer(devices, ...)` plays a round for each of its arguments once a run is asked for."""
    monkeypatch.setattr(following, "POLL_S", 0.01)
    threads = []

    def answer(*played: dict[str, Any]) -> None:
        def serve() -> None:
            store = Store(config.journal)
            while (run := store.active_run()) is None:
                time.sleep(0.01)
            for number, devices in enumerate(played, start=1):
                play(number, store, run=run.run, **devices)
            store.end_run(run.run, "done")
            store.close()

        threads.append(threading.Thread(target=serve))
        threads[-1].start()

    with serving(config.folder):
        yield answer
        for thread in threads:
            thread.join()


def test_start_ends_with_a_table_once_all_rounds_are_committed(config_path: Path, answer: Answer) -> None:
    answer({"reported": BOTH}, {"reported": BOTH})
    result = run("start", "--config", config_path, "--rounds", 2)
    assert result.exit_code == 0
    assert "Round 2 is committed: 2 of 2 devices reported in " in result.stderr
    table = words(result.stdout)
    assert table[0] == "round phase reported time down up metrics or reason"
    assert re.fullmatch(r"2 committed 2 of 2 0\.\d s 9\.1 MB 18\.2 MB loss 0\.4", table[2])


def test_start_ends_with_70_and_the_reason_if_a_round_is_void(config_path: Path, answer: Answer) -> None:
    answer({"reported": BOTH}, {"reported": {"rpi1": {}}, "failed": {"rpi2": "out of memory"}})
    result = run("start", "--config", config_path, "--rounds", 2, "--json")
    assert result.exit_code == 70
    assert [row["phase"] for row in json.loads(result.stdout)["rounds"]] == ["committed", "abandoned"]
    assert "1 of 2 rounds void: round 2" in result.stderr
    assert "rpi2 failed: out of memory" in result.stderr


def test_interrupted_start_leaves_the_run_going(
    config_path: Path, journal: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following, "show", interrupt)
    result = run("start", "--config", config_path)
    assert result.exit_code == 130
    assert f"Run 1 goes on; stop it with: fedpi-coordinator stop --config {config_path}" in result.stderr
    active = journal.active_run()
    assert active is not None
    assert active.state == "queued"


def test_detached_start_returns_at_once(config: CoordinatorConfig, config_path: Path, journal: Store) -> None:
    result = run("start", "--config", config_path, "--rounds", 3, "--detach")
    assert result.stdout == "Run 1 is queued until a coordinator is served.\n"
    with serving(config.folder):
        result = run("start", "--config", config_path, "--detach")
        assert result.stdout == "Run 2 is queued.\n"
        result = run("start", "--config", config_path, "--detach", "--json")
        assert json.loads(result.stdout) == {"run": 3, "is_served": True}
    first = journal.run(1)
    assert first is not None
    assert (first.rounds, first.state) == (3, "queued")


@pytest.fixture
def two_runs(journal: Store, play: Play) -> Store:
    """Give a journal with a round open in the first of two runs."""
    journal.ask_for(3)
    journal.go_on(1)
    play(1, silent=["rpi1", "rpi2"], is_over=False)
    journal.ask_for(3)
    return journal


@pytest.mark.parametrize(
    ("flags", "state", "told"),
    [
        ((), "stopping", "Stopping 2 runs. Round 1 is finished first."),
        (("--now",), "aborting", "Stopping 2 runs. Round 1 is void."),
    ],
)
def test_stop_says_what_becomes_of_the_open_round(
    config_path: Path, two_runs: Store, flags: tuple[str], state: str, told: str
) -> None:
    with serving(read_config(config_path).folder):
        result = run("stop", "--config", config_path, *flags)
    assert result.stdout == f"{told}\n"
    runs = [two_runs.run(1), two_runs.run(2)]
    assert [found.state for found in runs if found] == [state, "stopped"]


def test_stop_of_a_round_that_nobody_serves_says_when(config_path: Path, two_runs: Store) -> None:
    result = run("stop", "--config", config_path)
    assert result.stdout == "Stopping 2 runs. Round 1 is finished first, once a coordinator is served.\n"
    assert two_runs.open_round()


def test_stop_without_a_run_says_so(config_path: Path, journal: Store) -> None:
    assert run("stop", "--config", config_path).stdout == "There is no run to stop.\n"
    result = run("stop", "--config", config_path, "--json")
    assert json.loads(result.stdout) == {"runs": 0, "round": None, "is_served": False}
    assert journal.active_run() is None


# ---- looking at the journal -----------------------------------------------------------------


@pytest.fixture
def history(journal: Store, play: Play) -> None:
    play(1, reported=BOTH)
    play(2, reported={"rpi1": {}}, failed={"rpi2": "out of memory"})
    row = DeviceRow(device="rpi1", state="online", doing="waiting for a round", release="", seen=time.time())
    journal.see_devices([row, msgspec.structs.replace(row, device="rpi2", state="offline")])


@pytest.mark.usefixtures("history")
def test_status_for_people_and_programs(config_path: Path) -> None:
    lines = words(run("status", "--config", config_path).stdout)
    assert "federation brain" in lines
    assert "devices 1 of 2 online" in lines
    assert "last round 2: void: 1 of 2 invited devices reported; 2 are needed" in lines
    view = msgspec.json.decode(run("status", "--config", config_path, "--json").stdout, type=StatusView)
    assert view.last_round is not None
    assert (view.federation, view.is_served, view.last_round.round) == ("brain", False, 2)


@pytest.mark.usefixtures("history")
def test_devices_for_people_and_programs(config_path: Path) -> None:
    result = run("devices", "--config", config_path)
    assert words(result.stdout)[0] == "device state doing release seen reported health"
    assert re.fullmatch(r"rpi2 offline waiting for a round \d\.\d s ago 1 of 2", words(result.stdout)[2])
    assert "No coordinator is running: this is what was last heard." in result.stderr
    [first, _] = json.loads(run("devices", "--config", config_path, "--json").stdout)
    assert (first["device"], first["reported"], first["invited"]) == ("rpi1", 2, 2)


@pytest.mark.usefixtures("history")
def test_rounds_for_people_and_programs(config_path: Path) -> None:
    lines = words(run("rounds", "--config", config_path).stdout)
    assert lines[1].startswith("1 committed 2 of 2")
    assert lines[2].endswith("1 of 2 invited devices reported; 2 are needed")
    rows = json.loads(run("rounds", "--config", config_path, "--json").stdout)
    assert [row["round"] for row in rows] == [1, 2]


@pytest.mark.usefixtures("history")
def test_one_round_for_people_and_programs(config_path: Path) -> None:
    lines = words(run("rounds", "--config", config_path, "--round", 2).stdout)
    assert "rpi2 failed out of memory" in lines
    result = run("rounds", "--config", config_path, "--round", 2, "--json")
    view = msgspec.json.decode(result.stdout, type=RoundView)
    assert [entry.standing for entry in view.ledger] == ["reported", "failed"]
    result = run("rounds", "--config", config_path, "--round", 3)
    assert (result.exit_code, result.stderr) == (2, "main: there is no round 3; the last one is 2\n")


# ---- split ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slices")
    draw_slices(folder, 8, seed=0, size=48)
    (folder / "no" / "broken.png").write_bytes(b"")
    return folder


def test_split_prints_what_it_found_and_who_got_what(slices: Path, tmp_path: Path) -> None:
    result = run("split", slices, "--out", tmp_path / "out", "--sites", "lab,ward", "--unseen", 0.5)
    assert result.exit_code == 0
    lines = words(result.stdout)
    assert lines[0].startswith("16 images, ")
    assert "skipped: no/broken.png: the file is empty" in lines
    assert "part images no yes different" in lines
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "coordinator.csv",
        "lab.csv",
        "lab_unseen.csv",
        "split.json",
        "ward.csv",
        "ward_unseen.csv",
    ]


def test_split_takes_a_number_of_sites_and_shares_of_any_sum(slices: Path, tmp_path: Path) -> None:
    flags = ("--sites", 3, "--shares", "0,50,50,50", "--unseen", 0, "--json")
    result = run("split", slices, "--out", tmp_path, *flags)
    report = msgspec.json.decode(result.stdout, type=SplitReport)
    assert [part.name for part in report.parts] == ["rpi1", "rpi2", "rpi3"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--shares", "60,forty"), "--shares: '60,forty' is no list like 60,20,20"),
        (("--shares", "0,0,0"), "--shares: '0,0,0' is no list like 60,20,20"),
        (("--labels", "no"), "--labels: 'no' is not of the form no,yes"),
        (("--sites", "Lab"), "sites: 'Lab' is not a valid name"),
    ],
)
def test_split_flag_that_cannot_be_is_one_sentence(
    flags: tuple[str], sentence: str, slices: Path, tmp_path: Path
) -> None:
    result = run("split", slices, "--out", tmp_path, *flags)
    assert result.exit_code == 2
    assert sentence in result.stderr


# ---- the examples ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coordinator.yaml", "coordinator-mobilenet.yaml"])
def test_example_configuration_loads(name: str) -> None:
    config = read_config(ROOT / "config" / name)
    assert config.federation == "brain"
    assert config.initial.source == "train"


def test_what_is_commented_out_in_the_example_is_the_default(tmp_path: Path) -> None:
    example = ROOT / "config" / "coordinator.yaml"
    setting = re.compile(r"^( *)# ( *[a-z_]+:(?: |$))", re.MULTILINE)
    text, count = setting.subn(r"\1\2", example.read_text())
    full = tmp_path / "full.yaml"
    full.write_text(text)
    assert read_config(full) == read_config(example)
    assert count > 20
    assert set(yaml.safe_load(text)) == set(CoordinatorConfig.__struct_fields__)


@pytest.mark.system
def test_ctrl_c_while_the_initial_model_is_made_ends_both_processes_without_a_traceback(
    config: CoordinatorConfig, tmp_path: Path
) -> None:
    path = tmp_path / "cnn.yaml"
    plain = {"federation": "brain", "state": config.state, "model": {"name": "simple_cnn"}}
    path.write_text(yaml.safe_dump(plain))
    command = [sys.executable, "-m", "fedpi", "coordinator", "serve", "--config", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as serving_:
        assert serving_.stderr is not None
        assert "making the initial model" in serving_.stderr.readline()
        time.sleep(0.5)  # the child begins
        os.killpg(serving_.pid, signal.SIGINT)  # as a terminal does
        rest = serving_.stderr.read()  # until both have ended
        assert (serving_.wait(20), rest) == (0, "")
