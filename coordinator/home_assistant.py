"""Home Assistant told of devices and rounds: one retained document each, in the form of its MQTT discovery. Pure.

The form is that of https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload, from Home Assistant
2024.11 on: what is read are the status documents that fedpi retains anyway.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from common.topics import HOME_ASSISTANT_ROOT, Kind, topic

_ORIGIN = {"name": "fedpi"}


def discovery(federation: str, devices: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield topic and payload of what to retain: the federation, then each device."""
    yield _document(f"fedpi-{federation}", _federation(federation))
    for device in devices:
        yield _document(_name(federation, device), _device(federation, device))


def discovery_topic(federation: str, device: str) -> str:
    """Return the topic of a device's document."""
    return _topic(_name(federation, device))


def _name(federation: str, device: str) -> str:
    return f"fedpi-{federation}-dev-{device}"


def _topic(name: str) -> str:
    return f"{HOME_ASSISTANT_ROOT}/device/{name}/config"


def _document(name: str, plain: dict[str, Any]) -> tuple[str, bytes]:
    components = {key: {"unique_id": f"{name}-{key}", **part} for key, part in plain["components"].items()}
    device = {"identifiers": [name], "manufacturer": "fedpi", **plain["device"]}
    whole = {**plain, "components": components, "device": device, "origin": _ORIGIN, "qos": 1}
    return _topic(name), msgspec.json.encode(whole)


def _federation(federation: str) -> dict[str, Any]:
    status, round_ = topic(Kind.COORD_STATUS, federation), topic(Kind.COORD_ROUND, federation)
    last = topic(Kind.COORD_ROUNDS, federation)
    return {
        "device": {"name": f"fedpi {federation}", "model": "coordinator"},
        "availability": _availability(status),
        "state_topic": round_,
        "components": {
            "phase": _sensor("Phase", "{{ value_json.phase }}", icon="mdi:state-machine"),
            "round": _sensor("Round", "{{ value_json.round }}", icon="mdi:counter"),
            "reported": _sensor("Updates", "{{ value_json.reported | default(0) }}", icon="mdi:upload"),
            "story": _sensor("Story", "{{ value_json.text[:255] }}", icon="mdi:text"),
            "seconds": _sensor(
                "Last round",
                "{{ value_json.rounds[-1].seconds if value_json.rounds else none }}",
                state_topic=last,
                device_class="duration",
                unit_of_measurement="s",
            ),
        },
    }


def _device(federation: str, device: str) -> dict[str, Any]:
    status = topic(Kind.DEV_STATUS, federation, device=device)
    return {
        "device": {"name": device, "model": "device", "via_device": f"fedpi-{federation}"},
        "availability": _availability(status),
        "state_topic": status,
        "components": {
            "doing": _sensor("Doing", "{{ (value_json.doing | default(''))[:255] }}", icon="mdi:run"),
            "release": _sensor("Release", "{{ value_json.release | default('') }}", icon="mdi:tag"),
            "temperature": _health("Temperature", "temperature_c", device_class="temperature", unit="°C"),
            "memory": _health("Free memory", "memory_free_bytes", device_class="data_size", unit="B"),
            "disk": _health("Free disk", "disk_free_bytes", device_class="data_size", unit="B"),
            "voltage": _problem("Under-voltage", "'under-voltage' in (value_json.health.flags | default([]) or [])"),
            "throttled": _problem("Throttled", "'throttled' in (value_json.health.flags | default([]) or [])"),
            "unfit": _problem("Sits rounds out", "(value_json.health.unfit | default('')) != ''"),
        },
    }


def _availability(status_topic: str) -> list[dict[str, str]]:
    """Both status documents say `online` or `offline`, which are Home Assistant's own words."""
    return [{"topic": status_topic, "value_template": "{{ value_json.state }}"}]


def _sensor(name: str, template: str, **more: str) -> dict[str, Any]:
    return {"platform": "sensor", "name": name, "value_template": template, **more}


def _health(name: str, field: str, *, device_class: str, unit: str) -> dict[str, Any]:
    template = f"{{{{ value_json.health.{field} | default(none) if value_json.health else none }}}}"
    measured = _sensor(name, template, device_class=device_class, unit_of_measurement=unit)
    return {**measured, "state_class": "measurement", "entity_category": "diagnostic"}


def _problem(name: str, condition: str) -> dict[str, Any]:
    template = f"{{{{ 'ON' if value_json.health and {condition} else 'OFF' }}}}"
    return {
        "platform": "binary_sensor",
        "name": name,
        "device_class": "problem",
        "entity_category": "diagnostic",
        "value_template": template,
    }
