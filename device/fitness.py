"""Whether a device is fit to train: its health held against its configuration. Pure."""

from common.health import Health
from device.config import HealthConfig

COOLED_C = 5.0
"""A device that was too hot is fit again this far below the limit, so that it does not come and go."""
MB = 2**20


def unfitness(health: Health, config: HealthConfig, before: str = "") -> str:
    """Say why a device should sit rounds out, nothing where it is fit; `before` is what was said the last time."""
    flags = health.flags or ()
    if config.sit_out_when_throttled and "under-voltage" in flags:
        return "its power supply is too weak"
    if config.sit_out_when_throttled and "throttled" in flags:
        return "its processor is throttled"
    if (limit := config.max_temperature_c) is not None and health.temperature_c is not None:
        reason = f"too hot; its limit is {limit:g} °C"
        if health.temperature_c >= limit - (COOLED_C if before == reason else 0.0):
            return reason
    if _is_short(health.memory_free_bytes, config.min_memory_mb):
        return f"less than {config.min_memory_mb} MB of memory are free"
    if _is_short(health.disk_free_bytes, config.min_disk_mb):
        return f"less than {config.min_disk_mb} MB of disk are free"
    return ""


def _is_short(free_bytes: int | None, least_mb: int | None) -> bool:
    return free_bytes is not None and least_mb is not None and free_bytes < least_mb * MB
