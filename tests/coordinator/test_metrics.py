"""What Prometheus is told, and that rules and dashboard ask for nothing else."""

import datetime as dt
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from broker import authority as authorities
from common.config import TlsConfig
from common.errors import ConfigError
from common.health import Health
from common.tls import expiry_warning
from coordinator.attention import Notice
from coordinator.certificates import Certificates
from coordinator.config import CoordinatorConfig, MetricsConfig
from coordinator.metrics import COUNTERS, GAUGES, JournalCollector, exposed, samples
from coordinator.round_state import Round
from coordinator.store import DeviceRow, Release, Store
from tests.coordinator.conftest import model

Play = Callable[..., Round]
MONITORING = Path(__file__).resolve().parents[2] / "config" / "monitoring"
RULES = yaml.safe_load((MONITORING / "alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((MONITORING / "grafana.json").read_text(encoding="utf-8"))
HEALTH = Health(
    temperature_c=81.5,
    flags=("throttled",),
    memory_free_bytes=10**9,
    disk_free_bytes=10**10,
    load=0.5,
    card_life_used=0.3,
    card_state="normal",
    clock_synchronised=False,
    unfit="its processor is throttled",
)
Labels = frozenset[tuple[str, str]]


@pytest.fixture
def full(journal: Store, play: Play) -> Store:
    """A journal in which everything stands that can be measured."""
    play(1, reported={"rpi1": {"loss": 0.5}, "rpi2": {"loss": 0.5}})
    play(2, reported={"rpi1": {}}, failed={"rpi2": "no memory"})
    play(3, reported={"rpi1": {"loss": 0.1}}, silent=["rpi2"], is_over=False)
    release = Release(release="r1-ab", model=model(1), round=1, labels=("no", "yes"), created=1.0)
    journal.add_release(release)
    sick = DeviceRow(device="rpi1", state="online", doing="", release="r1-ab", seen=9.0, refused=2, health=HEALTH)
    told = Certificates(journal)
    told.hear("rpi1", expiry_warning(9.5 * 86_400, 0.0))
    told.hear("gone", expiry_warning(9.5 * 86_400, 0.0))
    told.flush()
    journal.see_devices([sick, DeviceRow(device="rpi2", state="offline", doing="", release="", seen=5.0)])
    return journal


def found(store: Store) -> dict[tuple[str, Labels], float]:
    return {(name, frozenset(labels.items())): float(value) for name, labels, value in samples(store)}


def labels(**more: str) -> Labels:
    return frozenset(more.items())


def test_the_journal_in_figures(full: Store) -> None:
    figures = found(full)
    assert figures["fedpi_rounds", labels(phase="committed")] == 1
    assert figures["fedpi_rounds", labels(phase="abandoned")] == 1
    assert figures["fedpi_round_bytes", labels(direction="up")] == 3 * 18_200_000
    assert figures["fedpi_round_number", labels()] == 3
    assert figures["fedpi_round_phase", labels(phase="reporting")] == 1
    assert figures["fedpi_round_phase", labels(phase="committed")] == 0
    assert figures["fedpi_round_devices", labels(standing="reported")] == 1
    assert figures["fedpi_round_metric", labels(metric="loss")] == 0.5, "the open round's figures are not final"
    assert figures["fedpi_device_rounds", labels(device="rpi2", standing="failed")] == 1
    assert figures["fedpi_device_online", labels(device="rpi1")] == 1
    assert figures["fedpi_device_temperature_celsius", labels(device="rpi1")] == 81.5
    assert figures["fedpi_device_flag", labels(device="rpi1", flag="throttled")] == 1
    assert figures["fedpi_device_flag", labels(device="rpi1", flag="under-voltage")] == 0
    assert figures["fedpi_device_clock_synchronised", labels(device="rpi1")] == 0
    assert figures["fedpi_device_sitting_out", labels(device="rpi1")] == 1


def test_the_days_that_a_devices_certificate_has_left_count_down_until_it_is_renewed(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, now = ("fedpi_certificate_days_left", labels(party="rpi1")), time.time()
    assert found(full)[key] == 9
    assert ("fedpi_certificate_days_left", labels(party="gone")) not in found(full)
    for days, left in ((3.5, 6), (30, 0)):  # it says nothing more
        monkeypatch.setattr("time.time", lambda days=days: now + days * 86_400)
        assert found(full)[key] == left
    told = Certificates(full)
    told.hear("rpi1", "rpi1 is idle. " + expiry_warning(-1.0, 0.0))
    told.flush()
    assert found(full)[key] == 0
    told.hear("rpi1", "rpi1 is idle.")
    told.flush()
    assert key not in found(full)


def test_what_nobody_knows_is_no_figure(full: Store) -> None:
    of_rpi2 = {name for name, found_labels in found(full) if ("device", "rpi2") in found_labels}
    assert of_rpi2 == {
        "fedpi_device_online",
        "fedpi_device_seen_timestamp_seconds",
        "fedpi_device_refused_messages",
        "fedpi_device_rounds",
    }


def test_every_metric_that_is_named_is_measured(full: Store) -> None:
    assert {name for name, _ in found(full)} == {*GAUGES, *COUNTERS}


def test_an_empty_journal_is_measured_too(journal: Store) -> None:
    assert found(journal)["fedpi_rounds", labels(phase="committed")] == 0


# ---- over HTTP ------------------------------------------------------------------------------


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.usefixtures("full")
def test_a_scrape_gives_what_prometheus_reads(config: CoordinatorConfig, free_port: int) -> None:
    with exposed(MetricsConfig(port=free_port), config.journal, "brain"):
        families = {family.name: family for family in text_string_to_metric_families(scrape(free_port))}
        (metric,) = families["fedpi_round_metric"].samples
        assert (metric.labels, metric.value) == ({"federation": "brain", "metric": "loss"}, 0.5)
        assert {"fedpi_rounds", "process_resident_memory_bytes"} <= set(families)
        assert "# HELP fedpi_round_number" in scrape(free_port)
    with pytest.raises(OSError, match="refused"):
        scrape(free_port)


@pytest.mark.usefixtures("journal")
def test_a_scrape_tells_how_long_the_coordinators_certificate_lasts(config: CoordinatorConfig, tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    made, key = authorities.create("lab", now), authorities.new_key()
    until = now + dt.timedelta(days=12, hours=1)
    (tmp_path / "crt").write_text(authorities.issue_client(made, "coordinator", key.public_key(), until, now))
    tls = TlsConfig(ca="", certificate=str(tmp_path / "crt"))

    def days() -> list[tuple[dict[str, str], float]]:
        families = {family.name: family for family in JournalCollector(config.journal, "brain", tls).collect()}
        return [(sample.labels, sample.value) for sample in families["fedpi_certificate_days_left"].samples]

    assert days() == [({"federation": "brain", "party": "coordinator"}, 12)]
    (tmp_path / "crt").unlink()
    assert days() == []


def test_nothing_listens_unless_asked(config: CoordinatorConfig, free_port: int) -> None:
    with exposed(config.metrics, config.journal, "brain"), pytest.raises(OSError, match="refused"):
        scrape(free_port)


def test_a_port_that_is_taken_is_one_sentence(config: CoordinatorConfig, free_port: int) -> None:
    metrics = MetricsConfig(port=free_port)
    with (
        exposed(metrics, config.journal, "brain"),
        pytest.raises(ConfigError, match=r"metrics\.port: cannot listen on 127\.0\.0\.1"),
        exposed(metrics, config.journal, "brain"),
    ):
        pass


# ---- rules and dashboard --------------------------------------------------------------------


def expressions() -> Iterator[str]:
    yield from (rule["expr"] for rule in RULES)
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"]:
        query: Any = variable["query"]
        if isinstance(query, dict):
            yield query["query"]


def exposed_labels(store: Store) -> dict[str, dict[str, set[str]]]:
    """Label names and values of each metric as Prometheus knows it."""
    known: dict[str, dict[str, set[str]]] = {}
    for name, found_labels in found(store):
        full_name = f"{name}_total" if name in COUNTERS else name
        values = known.setdefault(full_name, {"federation": set()})
        for label, value in found_labels:
            values.setdefault(label, set()).add(value)
    return known


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_an_expression_asks_for_metrics_and_labels_that_exist(full: Store, expression: str) -> None:
    known = exposed_labels(full)
    assert expression.count("(") == expression.count(")")
    names = re.findall(r"\bfedpi_\w+", expression)
    assert names or expression.startswith("up{")
    assert set(names) <= set(known)
    for name, selector in re.findall(r"\b(fedpi_\w+)\{([^}]*)\}", expression):
        for label, _, value in re.findall(r'(\w+)(=~|=)"([^"]*)"', selector):
            assert label in known[name], f"{name} has no label {label}"
            if label in {"phase", "flag", "direction"}:
                assert set(value.split("|")) <= known[name][label], f"{name}: {label} is never {value}"
    for by in re.findall(r"\bon \(([^)]*)\)", expression):
        assert all(set(by.split(", ")) <= set(known[name]) for name in names)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_is_whole_and_says_where_its_cure_is(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["labels"]["notice"] in set(Notice)
    assert rule["annotations"]["summary"].endswith(".")
    assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))


def test_no_two_panels_share_a_place() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
