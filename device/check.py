"""What stands between a device and its work: one finding a question, asked before round 1."""

import importlib.util
import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec

from common import skipped
from common.config import DataConfig
from common.errors import ConfigError, FedpiError, LinkError, WorkError
from common.inbox import Inbox
from common.learning import seam
from common.learning.seam import BUILT_IN_MODELS, Examples
from common.limits import Limits
from common.link import CLOSED, Broken, Denied, Down, Link, Subscribed, Up
from common.names import address
from common.signing import Signer, Verifier
from common.tls import certificate_fault, certificate_until, context, expiry_warning
from common.topics import Kind, topic
from common.troubles import of_port
from common.verified import read_verified
from device.account import is_readable, run_as, service_account
from device.config import DeviceConfig, read_config
from device.fitness import MB, unfitness
from device.health import ask_timedatectl, is_timesyncd_right, read_health
from device.inference import Classifier, find_interpreter
from device.store import current_release

BROKER_S = 5.0
AGAIN_S = 0.2
"""Longest pause between two attempts to connect."""
TRIES = CLOSED + 3
"""Attempts after which the answer is no: `run` falls back to MQTT 3.1.1 before."""
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
    """Check the device that the configuration file `path` describes, in the order in which to mend what is wrong.

    Root checks as the service's account, in a process of its own. Raises WorkError where that one ends by itself.
    """
    if (account := service_account()) is None:
        return _examine(path)
    path = path.absolute()
    if not run_as(account, path.parent / "device", is_readable):
        text = f"{account.pw_name}, the service's account, may not read this program; what follows was checked as root"
        return [Finding("account", "warn", text), *_examine(path)]
    answer = run_as(account, path.parent / "device", lambda: msgspec.json.encode(_examine(path)))
    text = f"what follows was checked as {account.pw_name}, the service's account"
    return [Finding("account", "ok", text), *msgspec.json.decode(answer, type=list[Finding])]


def _examine(path: Path) -> list[Finding]:
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
    if others := _not_ours(config.folder):
        user = pwd.getpwuid(os.geteuid()).pw_name
        raise WorkError(
            f"state: {user} may not read and write {others[0]}, and {len(others) - 1} more; give them to it: "
            f"chown -R {user} {config.folder}"
        )
    text = f"{config.folder} is writable, {free_mb:,} MB free"
    return Finding("", "ok" if free_mb >= FREE_MB else "warn", text)


def _not_ours(folder: Path) -> list[Path]:
    """Return files and folders of the state that the service could not read or write."""
    found = [Path(root, name) for root, folders, files in os.walk(folder) for name in (*folders, *files)]
    return sorted(path for path in found if not path.is_symlink() and not os.access(path, os.R_OK | os.W_OK))


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
    usable, share = len(site.train) + len(site.unseen), config.data.max_skipped_share
    told = skipped.sentence(usable, len(site.skipped), (), share)
    return Finding("", "warn" if told else "ok", "; ".join(filter(None, (*counts, told))), site.skipped)


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
    text = f"{package} {_version(package)}, serving.process is {config.serving.process}"
    if (release := current_release(config.folder)) is not None:
        content = read_verified(config.folder / release.file)
        Classifier(release.release, content, release.labels, config.serving.threads)
        text = f"{text}, release {release.release} is whole"
    return Finding("", "ok", text)


def _identity(config: DeviceConfig) -> Finding:
    Signer(config.signing), Verifier(config.signing)
    if config.broker.tls is not None:
        context(config.broker.tls)
    if (fault := certificate_fault(config.broker.tls)) is not None:
        raise fault
    until = certificate_until(config.broker.tls)
    if until is None:
        return Finding(
            "", "ok", "no certificate is configured, nothing is signed" if config.signing is None else "signs"
        )
    day = time.strftime("%Y-%m-%d", time.gmtime(until))
    warning = expiry_warning(until)
    return Finding("", "warn" if warning else "ok", warning or f"the certificate lasts until {day}")


def _broker(config: DeviceConfig) -> Finding:
    """Connect as `run` does, only sooner again, until both versions of the protocol were tried."""
    inbox, broker = Inbox(), msgspec.structs.replace(config.broker, reconnect_max_s=AGAIN_S)
    link = Link("check", f"fedpi-{config.federation}-check-{config.device}", broker, inbox)
    link.start()
    downs: list[Down] = []
    try:
        end = time.monotonic() + BROKER_S
        while (now := time.monotonic()) < end and len(downs) < TRIES:
            match inbox.get(end - now):
                case Up(limits=limits):
                    return _rights(config, link, inbox, limits)
                case Down() as down:
                    downs.append(down)
                case Broken(error=error):
                    raise error
    finally:
        link.stop()
    where = address(broker.host, broker.port)
    silence = Down("", f"{where} does not answer within {BROKER_S:g} s; look whether it is a broker of MQTT")
    worst = next((down for down in downs if down.is_lasting), (downs or [silence])[-1])
    if not worst.is_lasting and (trouble := of_port(broker)) is not None:
        worst = Down("", f"{where}: {trouble.text}", trouble.is_lasting)
    kind = ConfigError if worst.is_lasting else LinkError
    raise kind(f"no connection to the broker: {worst.reason}")


def _rights(config: DeviceConfig, link: Link, inbox: Inbox, limits: Limits) -> Finding:
    """Ask for what the device needs to hear, and say what the broker carries."""
    name, where = topic(Kind.DEV_CMD, config.federation, device=config.device), config.broker
    link.subscribe(name)
    end = time.monotonic() + BROKER_S
    while (now := time.monotonic()) < end:
        match inbox.get(end - now):
            case Denied(reason=reason):
                raise ConfigError(f"the broker lets {config.device} in, and not hear {name}: {reason}; enrol that name")
            case Down(reason=reason):
                raise LinkError(f"the broker ended the connection: {reason}")
            case Subscribed():
                packets = f"packets up to {limits.packet_bytes:,} bytes" if limits.packet_bytes else "no packet limit"
                announced = f"{packets}, {limits.window} publishes at once"
                spoken = f"{address(where.host, where.port)} speaks MQTT {limits.protocol}"
                return Finding("", "ok", f"{spoken}: {announced}")
    raise LinkError(f"the broker lets {config.device} in, and does not answer within {BROKER_S:g} s; see its log")


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
