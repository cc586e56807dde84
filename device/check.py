"""What stands between a device and its work: one finding a question, asked before round 1."""

import importlib.util
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from common.config import DataConfig
from common.errors import ConfigError, FedpiError, LinkError, WorkError
from common.inbox import Inbox
from common.learning import seam
from common.learning.seam import BUILT_IN_MODELS, Examples
from common.link import Down, Link, Up
from common.names import address
from common.signing import Signer, Verifier
from common.tls import certificate_until, expiry_warning
from device.config import DeviceConfig, read_config
from device.fitness import MB, unfitness
from device.health import ask_timedatectl, is_timesyncd_right, read_health
from device.inference import find_interpreter

BROKER_S = 5.0
IMAGE_SIZE = 32
"""Pixels a side at which images are loaded to see that they can be."""
FREE_MB = 200


@dataclass(frozen=True)
class Finding:
    """The answer to one question; `exit_code` is that of the error where it is FAIL, `details` name single files."""

    check: str
    standing: Literal["ok", "warn", "FAIL"]
    text: str
    details: tuple[str, ...] = ()
    exit_code: int = 0


def examine(path: Path) -> list[Finding]:
    """Check the device that the configuration file `path` describes, in the order in which to mend what is wrong."""
    try:
        config = read_config(path)
    except ConfigError as error:
        return [Finding("configuration", "FAIL", str(error), exit_code=error.exit_code)]
    text = f"{config.device} of federation {config.federation}"
    return [Finding("configuration", "ok", text), *(_ask(name, question, config) for name, question in _QUESTIONS)]


def _ask(name: str, question: Callable[[DeviceConfig], Finding], config: DeviceConfig) -> Finding:
    try:
        return replace(question(config), check=name)
    except FedpiError as error:
        return Finding(name, "FAIL", str(error), exit_code=error.exit_code)


def _state(config: DeviceConfig) -> Finding:
    try:
        config.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=config.folder):
            free_mb = shutil.disk_usage(config.folder).free >> 20
    except OSError as error:
        raise WorkError(f"state: cannot write to {config.folder}: {error.strerror}; correct it") from error
    text = f"{config.folder} is writable, {free_mb:,} MB free"
    return Finding("", "ok" if free_mb >= FREE_MB else "warn", text)


def _health(config: DeviceConfig) -> Finding:
    root = Path("/")
    health = read_health(root, config.folder, clock=is_timesyncd_right(root) or ask_timedatectl())
    if reason := unfitness(health, config.health):
        return Finding("", "warn", f"would sit rounds out: {reason}; see 'health'")
    heat = "" if health.temperature_c is None else f"{health.temperature_c:.0f} °C, "
    clock = {True: "right", False: "not synchronised", None: "unknown"}[health.clock_synchronised]
    memory_mb = (health.memory_free_bytes or 0) // MB
    text = f"fit to train: {heat}{memory_mb:,} MB of memory free; clock: {clock}"
    return Finding("", "warn" if health.clock_synchronised is False else "ok", text)


def _images(config: DeviceConfig) -> Finding:
    if config.data == DataConfig():
        return Finding("", "warn", "no data is configured: this device serves, but cannot train")
    if config.data.loader is None and importlib.util.find_spec("PIL") is None:
        raise ConfigError("pillow, which decodes images, is not installed; install fedpi[learning]")
    site = seam.load(config.data, IMAGE_SIZE)
    counts = [_counts(part, examples, config) for part, examples in (("train", site.train), ("unseen", site.unseen))]
    skipped = (f"skipped {len(site.skipped)}",) if site.skipped else ()
    return Finding("", "warn" if skipped else "ok", "; ".join((*counts, *skipped)), site.skipped)


def _counts(part: str, examples: Examples, config: DeviceConfig) -> str:
    numbers = [f"{name} {int((examples.labels == label).sum())}" for label, name in enumerate(config.data.label_names)]
    return f"{part} {len(examples)} ({', '.join(numbers)})"


def _models(config: DeviceConfig) -> Finding:
    for name, entry in config.models.items():
        seam.resolve(entry, f"models.{name}")
    own = ", ".join(sorted(config.models)) or "none"
    return Finding("", "ok", f"built in: {', '.join(sorted(BUILT_IN_MODELS))}; your own: {own}")


def _trainer(_config: DeviceConfig) -> Finding:
    if importlib.util.find_spec("tensorflow") is None:
        text = "TensorFlow is not installed: the built-in Keras models cannot be trained here; install fedpi[learning]"
        return Finding("", "warn", text)
    return Finding("", "ok", f"TensorFlow {_version('tensorflow')}")


def _serving(config: DeviceConfig) -> Finding:
    try:
        package, _ = find_interpreter()
    except ConfigError as error:
        if config.serving.process == "child":
            raise ConfigError(f"{error}, or set serving.process to 'off'") from error
        return Finding("", "warn", str(error))
    return Finding("", "ok", f"{package} {_version(package)}, serving.process is {config.serving.process}")


def _identity(config: DeviceConfig) -> Finding:
    Signer(config.signing), Verifier(config.signing)
    until = certificate_until(config.broker.tls)
    if until is None:
        return Finding(
            "", "ok", "no certificate is configured, nothing is signed" if config.signing is None else "signs"
        )
    day = time.strftime("%Y-%m-%d", time.gmtime(until))
    warning = expiry_warning(until)
    return Finding("", "warn" if warning else "ok", warning or f"the certificate lasts until {day}")


def _broker(config: DeviceConfig) -> Finding:
    inbox = Inbox()
    where = address(config.broker.host, config.broker.port)
    reasons: list[str] = []
    link = Link("check", f"fedpi-{config.federation}-check-{config.device}", config.broker, inbox)
    link.start()
    try:
        end = time.monotonic() + BROKER_S
        while (now := time.monotonic()) < end and len(reasons) < 2:  # two, for the two versions of the protocol
            match inbox.get(end - now):
                case Up(limits=limits):
                    packets = (
                        f"packets up to {limits.packet_bytes:,} bytes" if limits.packet_bytes else "no packet limit"
                    )
                    announced = f"{packets}, {limits.window} publishes at once"
                    return Finding("", "ok", f"{where} speaks MQTT {limits.protocol}: {announced}")
                case Down(reason=reason):
                    reasons.append(reason)
    finally:
        link.stop()
    reason = reasons[-1] if reasons else f"{where} does not answer within {BROKER_S:g} s"
    raise LinkError(f"no connection to the broker: {reason}; check 'broker' and the broker's log")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a module from elsewhere than a wheel of that name
        return "of unknown version"


_QUESTIONS: tuple[tuple[str, Callable[[DeviceConfig], Finding]], ...] = (
    ("state folder", _state),
    ("health", _health),
    ("images", _images),
    ("models", _models),
    ("trainer", _trainer),
    ("serving", _serving),
    ("identity", _identity),
    ("broker", _broker),
)
