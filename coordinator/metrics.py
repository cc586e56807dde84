"""`/metrics` for Prometheus, read from the journal at every scrape: the service's loop knows nothing of it.

prometheus_client is the project's own library, in Python alone. Times are Unix seconds.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from common.bundle import COORDINATOR
from common.config import TlsConfig
from common.errors import ConfigError, FedpiError
from common.health import Flag, Health
from common.names import address
from common.tls import certificate_until
from coordinator.certificates import DAY_S, days_left
from coordinator.config import MetricsConfig
from coordinator.round_state import Phase, Standing
from coordinator.store import DeviceRow, RoundRow, Store, Totals

if TYPE_CHECKING:
    from prometheus_client import Metric

GAUGES = {
    "fedpi_round_number": "The open round, or the last one",
    "fedpi_round_phase": "1 for the phase of that round",
    "fedpi_round_seconds": "How long that round took, or takes already",
    "fedpi_round_opened_timestamp_seconds": "When that round was opened",
    "fedpi_round_devices": "Devices of that round by standing",
    "fedpi_round_metric": "Means of the devices' own figures in the last committed round",
    "fedpi_release_info": "1 for the release to serve",
    "fedpi_certificate_days_left": "Days until a certificate ends; a device tells them within the last 30",
    "fedpi_device_online": "1 while the device is connected",
    "fedpi_device_seen_timestamp_seconds": "When the device last told its status",
    "fedpi_device_release_info": "1 for the release that the device serves",
    "fedpi_device_refused_messages": "Messages that the device dropped since its start",
    "fedpi_device_sitting_out": "1 while its health keeps the device from training",
    "fedpi_device_temperature_celsius": "Temperature of the hottest zone",
    "fedpi_device_flag": "1 for what the firmware of a Raspberry Pi reports",
    "fedpi_device_memory_free_bytes": "Memory that programs may still take",
    "fedpi_device_disk_free_bytes": "Free disk where the device keeps its state",
    "fedpi_device_load_ratio": "Load average of the last minute over the number of cores",
    "fedpi_device_card_life_used_ratio": "Share of the memory card's life that is used up",
    "fedpi_device_clock_synchronised": "1 while the device's clock is kept right",
}
COUNTERS = {
    "fedpi_rounds": "Rounds that are over, by phase",
    "fedpi_round_bytes": "Bytes that rounds moved, by direction",
    "fedpi_device_rounds": "Rounds by device and what became of it in them",
}
"""Prometheus adds `_total` to these names."""
RECENT = 20
"""Rounds back to which one that is committed is looked for."""
Sample = tuple[str, dict[str, str], float]


@contextmanager
def exposed(config: MetricsConfig, journal: Path, federation: str, tls: TlsConfig | None = None) -> Iterator[None]:
    """Serve the metrics of a journal at `config.host` and `config.port` while the block runs, if a port is named.

    `tls` names the coordinator's own certificate. Raises ConfigError where prometheus_client is not installed or the
    port is taken.
    """
    if config.port is None:
        yield
        return
    try:
        from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry
        from prometheus_client import start_http_server as start
    except ImportError as error:
        raise ConfigError("metrics.port: prometheus-client is not installed; install fedpi[metrics]") from error
    registry = CollectorRegistry()
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, JournalCollector(journal, federation, tls)):
        registry.register(collector)
    try:
        server, thread = start(config.port, config.host, registry)
    except OSError as error:
        where = address(config.host, config.port)
        raise ConfigError(f"metrics.port: cannot listen on {where}: {error.strerror}; name another one") from error
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class JournalCollector:
    """What prometheus_client asks for samples; any thread may do so."""

    def __init__(self, journal: Path, federation: str, tls: TlsConfig | None = None) -> None:
        self._journal = journal
        self._federation = federation
        self._tls = tls

    def describe(self) -> list["Metric"]:
        """Name nothing beforehand: the journal is not read before the first scrape."""
        return []

    def collect(self) -> Iterator["Metric"]:
        """Read the journal; yields every metric that has a value now."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        store = Store(self._journal)
        try:
            found = [*samples(store), *_of_own_certificate(self._tls)]
        finally:
            store.close()
        for names, family in ((GAUGES, GaugeMetricFamily), (COUNTERS, CounterMetricFamily)):
            for name, text in names.items():
                ours = [sample for sample in found if sample[0] == name]
                labels = ["federation", *(ours[0][1] if ours else ())]
                metric = family(name, text, labels=labels)
                for _, values, value in ours:
                    metric.add_metric([self._federation, *values.values()], value)
                yield metric


def samples(store: Store) -> Iterator[Sample]:
    """Yield name, labels and value of all that the journal tells."""
    devices = store.devices()
    yield from _of_all(store.totals(), {row.device for row in devices})
    recent = store.rounds(last=RECENT)
    for row in recent[-1:]:
        yield from _of_round(row, store)
    for row in [row for row in recent if row.phase == Phase.COMMITTED][-1:]:
        for name, value in row.metrics.items():
            yield "fedpi_round_metric", {"metric": name}, value
    if (release := store.newest_release()) is not None:
        yield "fedpi_release_info", {"release": release.release}, 1
    ends = days_left(store)
    for device in devices:
        yield from _of_device(device)
        if device.device in ends:
            yield "fedpi_certificate_days_left", {"party": device.device}, ends[device.device]


def _of_own_certificate(tls: TlsConfig | None) -> Iterator[Sample]:
    with suppress(FedpiError):  # one that cannot be read now
        if (until := certificate_until(tls)) is not None:
            days = max(int((until - time.time()) // DAY_S), 0)
            yield "fedpi_certificate_days_left", {"party": COORDINATOR}, days


def _of_all(totals: Totals, known: set[str]) -> Iterator[Sample]:
    for phase in (Phase.COMMITTED, Phase.ABANDONED):
        yield "fedpi_rounds", {"phase": phase.value}, totals.rounds.get(phase, 0)
    yield "fedpi_round_bytes", {"direction": "down"}, totals.bytes_down
    yield "fedpi_round_bytes", {"direction": "up"}, totals.bytes_up
    for (device, standing), count in totals.standings.items():
        if device in known:  # else it was forgotten
            yield "fedpi_device_rounds", {"device": device, "standing": standing}, count


def _of_round(row: RoundRow, store: Store) -> Iterator[Sample]:
    yield "fedpi_round_number", {}, row.round
    for phase in Phase:
        yield "fedpi_round_phase", {"phase": phase.value}, phase == row.phase
    yield "fedpi_round_seconds", {}, row.seconds
    yield "fedpi_round_opened_timestamp_seconds", {}, row.opened
    standings = [entry.standing for entry in store.ledger(row.round)]
    for standing in Standing:
        yield "fedpi_round_devices", {"standing": standing.value}, standings.count(standing)


def _of_device(row: DeviceRow) -> Iterator[Sample]:
    device = {"device": row.device}
    yield "fedpi_device_online", device, row.state == "online"
    yield "fedpi_device_seen_timestamp_seconds", device, row.seen
    yield "fedpi_device_refused_messages", device, row.refused
    if row.release:
        yield "fedpi_device_release_info", {**device, "release": row.release}, 1
    if row.health is not None:
        yield from _of_health(device, row.health)


def _of_health(device: dict[str, str], health: Health) -> Iterator[Sample]:
    yield "fedpi_device_sitting_out", device, bool(health.unfit)
    figures = {
        "fedpi_device_temperature_celsius": health.temperature_c,
        "fedpi_device_memory_free_bytes": health.memory_free_bytes,
        "fedpi_device_disk_free_bytes": health.disk_free_bytes,
        "fedpi_device_load_ratio": health.load,
        "fedpi_device_card_life_used_ratio": health.card_life_used,
        "fedpi_device_clock_synchronised": health.clock_synchronised,
    }
    yield from ((name, device, value) for name, value in figures.items() if value is not None)
    if health.flags is not None:
        for flag in get_args(Flag):
            yield "fedpi_device_flag", {**device, "flag": flag}, flag in health.flags
