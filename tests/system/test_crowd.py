"""The benchmark's row of light devices: a real coordinator, fedpi's own sessions, and the limits beside the figures."""

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from coordinator.rehearsal.bench import Report
from coordinator.rehearsal.crowd import LIMITED, Crowd, measure
from coordinator.rehearsal.summary import show_bench

pytestmark = pytest.mark.system

DEVICES, ROUNDS = 20, 3


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Crowd:
    return measure(tmp_path_factory.mktemp("crowd"), DEVICES, ROUNDS)


def shown(crowd: Crowd) -> str:
    out = Console(file=io.StringIO(), width=200)
    show_bench(Report(model_bytes=1, tensors=1, results=(), crowds=(crowd,)), Path(), out)
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_rounds_of_many_light_devices_are_committed_and_measured(crowd: Crowd) -> None:
    assert (crowd.devices, crowd.rounds, len(crowd.round_seconds)) == (DEVICES, ROUNDS, ROUNDS)
    assert crowd.cpu_seconds > 0
    assert crowd.ratio == pytest.approx(sum(crowd.round_seconds) / (crowd.cpu_seconds * ROUNDS))
    assert f"{crowd.ratio:.2f}" in shown(crowd)


def test_the_table_holds_a_hundred_devices_against_the_limits(crowd: Crowd) -> None:
    good = msgspec.structs.replace(crowd, devices=LIMITED, ratio=1.9, seconds=0.69)
    assert "within the limits: 2 times, 0.7 s" in shown(good)
    for worse in ({"ratio": 2.1}, {"seconds": 0.71}, {"written_kb": 41.0}):
        assert "ABOVE the limits: 2 times, 0.7 s, 40 kB" in shown(msgspec.structs.replace(good, **worse))


def test_what_goes_to_the_disk_is_held_against_its_limits_for_any_number_of_devices(crowd: Crowd) -> None:
    assert crowd.written_kb > 0
    good = msgspec.structs.replace(crowd, written_kb=39.0)
    assert "within the limits: 40 kB, 12 syncs, 2 in series" in shown(good)
    for worse in ({"written_kb": 41.0}, {"syncs": 12.1}, {"syncs_in_series": 3}):
        assert "ABOVE the limits: 40 kB, 12 syncs, 2 in series" in shown(msgspec.structs.replace(good, **worse))


def test_a_commit_waits_for_two_syncs_and_makes_four(crowd: Crowd) -> None:
    assert crowd.syncs_in_series == 2
    assert 4 <= crowd.syncs < 5  # a run's own begin and end are written between commits


def test_the_report_has_what_goes_to_the_disk_with_its_limits(crowd: Crowd) -> None:
    told = msgspec.to_builtins(crowd)
    for name in ("written", "syncs", "syncs_in_series"):
        assert {key for key in told if key.startswith(name) and key.endswith(("limit", "limit_kb"))}
    assert told["written_limit_kb"] == 40
    assert (told["syncs"], told["syncs_in_series_limit"]) == (crowd.syncs, 2)
