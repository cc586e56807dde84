"""The zero-install broker for demos and tests: iotcore (rumqttd) in a child process.

It knows no topic ACL and no passwords, so it stays on loopback.
"""

import logging
from typing import TYPE_CHECKING

from broker.ports import require_free
from broker.settings import LOOPBACK, ServeConfig, is_loopback
from common.errors import ConfigError, WorkError
from common.files import write_atomic
from common.stopping import Stop

if TYPE_CHECKING:
    import iotcore

logger = logging.getLogger(__name__)

PAYLOAD_BYTES = 2**20
INFLIGHT = 100
SEGMENT_BYTES = 2**20
SEGMENTS = 16
"""The broker keeps the last `SEGMENTS` x `SEGMENT_BYTES` of every subscription filter until it ends: enough
that a subscriber may lag a whole model behind a publisher, and little enough for a small machine."""
WATCH_S = 0.2


def render(config: ServeConfig) -> str:
    """Write rumqttd's TOML: MQTT 5 on `port`, 3.1.1 on the second port, since it cannot do both on one.

    Raises ConfigError for an address that other machines could reach.
    """
    if not is_loopback(config.host) or ":" in config.host:
        raise ConfigError(
            f"host: the embedded broker has no access control and listens on {LOOPBACK} only, "
            f"not on {config.host}; use Mosquitto there (kind: mosquitto)"
        )
    host = LOOPBACK if config.host == "localhost" else config.host
    return "\n".join(
        [
            "# Written by `fedpi-broker run`; changes are lost.",
            "id = 0",
            "[router]",
            "id = 0",
            "max_connections = 1000",
            "max_outgoing_packet_count = 200",
            f"max_segment_size = {SEGMENT_BYTES}",
            f"max_segment_count = {SEGMENTS}",
            *_listener("v5", host, config.port),
            *_listener("v4", host, config.second_port),
            "",
        ]
    )


def _listener(version: str, host: str, port: int) -> list[str]:
    return [
        f"[{version}.1]",
        f'name = "{version}"',
        f'listen = "{host}:{port}"',
        "next_connection_delay_ms = 1",
        f"[{version}.1.connections]",
        "connection_timeout_ms = 60000",
        f"max_payload_size = {PAYLOAD_BYTES}",
        f"max_inflight_count = {INFLIGHT}",
        "dynamic_filters = true",
    ]


def start(config: ServeConfig) -> "iotcore.Broker":
    """Start the broker and return once it accepts connections; it ends with this process, however that ends.

    Raises ConfigError (iotcore not installed, port taken) and WorkError (it did not come up).
    """
    try:
        import iotcore
    except ImportError as error:
        raise ConfigError("the embedded broker needs iotcore; install fedpi[broker] or use Mosquitto") from error
    text = render(config)
    for port in (config.port, config.second_port):
        require_free(config.host, port)
    path = config.root / "rumqttd.toml"
    write_atomic(path, text.encode())
    try:
        return iotcore.Broker(config_path=str(path)).start()
    except (OSError, RuntimeError) as error:
        raise WorkError(f"the embedded broker did not start: {error}") from error


def watch(broker: "iotcore.Broker", stopping: Stop) -> None:
    """Return when `stopping` is set, with the broker stopped; raises WorkError if it ends before."""
    try:
        while not stopping.wait(WATCH_S):
            # Ctrl+C reaches the child, too, and perhaps first: give our own signal a moment.
            if not broker.is_running and not stopping.wait(WATCH_S):
                raise WorkError("the embedded broker ended by itself; start it again")
    finally:
        broker.stop()
