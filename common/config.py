"""YAML to frozen, validated structs: an unknown key is an error that names the nearest one."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from common.errors import ConfigError
from common.explaining import explain
from common.limits import PACKET_LEAST
from common.messages import DeviceId, Label, Options
from common.names import bare_host, host_fault
from common.yaml_text import Document, parse

MAX_TEXT_BYTES = 2**18
"""Of a configuration or a password."""
FilePath = Annotated[str, msgspec.Meta(extra={"is": "path"})]
"""A file or folder; `~` is the home folder."""
Host = Annotated[str, msgspec.Meta(extra={"is": "host"})]
"""A name or an address, without a protocol and a port."""

Folders = FilePath | tuple[FilePath, ...]
"""One folder or a list of folders."""
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0, le=1e7)]
T = TypeVar("T")


class _FieldError(ConfigError, ValueError):
    """What is wrong with one field: msgspec adds to a ValueError where the field stands."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section of a configuration file. Fields of the types `FilePath` and `Host` are checked and put in one form."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a path or host that cannot be."""
        for name, put in checked_fields(type(self)):
            value = getattr(self, name)
            try:
                made = tuple(map(put, value)) if isinstance(value, tuple) else value and put(value)
            except ValueError as error:
                raise _FieldError(f"field `{name}`: {error}") from error
            if made != value:
                msgspec.structs.force_setattr(self, name, made)


@cache
def checked_fields(section: type[Config]) -> tuple[tuple[str, Callable[[str], str]], ...]:
    """The fields of `section` that are checked, each with its function."""
    found = []
    for field in msgspec.inspect.type_info(section).fields:  # type: ignore[attr-defined]
        found += [(field.name, _CHECKS[mark]) for mark in _marks(field.type)]
    return tuple(found)


def _marks(info: msgspec.inspect.Type) -> set[str]:
    """Marks of a type, of the parts of a union and of the items of a list."""
    match info:
        case msgspec.inspect.Metadata(extra={"is": mark}):
            return {mark}
        case msgspec.inspect.UnionType(types=types):
            return {mark for kind in types for mark in _marks(kind)}
        case msgspec.inspect.VarTupleType(item_type=item):
            return _marks(item)
    return set()


def home_path(text: str) -> str:
    """Put the home folder for `~` or `~user` at the start; raises ValueError with a sentence."""
    try:
        os.fsencode(text)
        if "\0" in text:
            raise ValueError("no path holds the character 0")
        return str(Path(text).expanduser()) if text.startswith("~") else text
    except UnicodeEncodeError as error:
        raise ValueError("no path holds half a character") from error
    except RuntimeError as error:
        user = text.split("/", maxsplit=1)[0]
        raise ValueError(f"the home folder {user!r} is not known here; write the whole path") from error


def _host(text: str) -> str:
    if fault := host_fault(text):
        raise ValueError(fault)
    return bare_host(text)


_CHECKS: dict[str, Callable[[str], str]] = {"path": home_path, "host": _host}


class TlsConfig(Config, frozen=True):
    """Certificates for the broker connection: paths of PEM files. `locate` finds the key."""

    ca: FilePath
    certificate: FilePath | None = None
    key: FilePath | None = None


class SigningConfig(Config, frozen=True):
    """Our Ed25519 key in PEM, which `locate` finds, and the file of those whose signatures count (`common.signing`)."""

    key: FilePath
    peers: FilePath


class BrokerConfig(Config, frozen=True):
    """Where the broker is, and how to log in. `protocol: auto` speaks MQTT 5 and falls back to 3.1.1."""

    host: Host = "127.0.0.1"
    port: Port = 1883
    username: str | None = None
    password_file: FilePath | None = None
    tls: TlsConfig | None = None
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 30
    heartbeat_s: PositiveSeconds = 30.0
    """How often a party tells again what the broker retains of it: a broker that comes back empty gets it this soon."""
    reconnect_max_s: PositiveSeconds = 30.0
    """Longest pause before a connection is tried again. Pauses double from half a second, and are drawn below that."""
    packet_limit_bytes: Annotated[int, msgspec.Meta(ge=PACKET_LEAST, le=2**28)] | None = None
    """For a broker that enforces a limit without announcing it: `fedpi-broker check` finds it."""


class DataConfig(Config, frozen=True):
    """A site's images: a folder with one folder a label, or that folder and a CSV of `file,label`."""

    images: FilePath | None = None
    labels: FilePath | None = None
    """CSV `file,label` of the images to train on; without it every image under `images/<label>/`."""
    unseen: FilePath | None = None
    """CSV or folder of images that are never trained on and serve to evaluate."""
    label_names: tuple[Label, Label] = ("no", "yes")
    """Negative first, positive second: 0 and 1 in a CSV, unless one of them is a number itself."""
    loader: str | None = None
    """A loader of your own, as `package.module:function` (see `common.learning.seam`)."""
    options: Options = {}
    """Passed to that loader."""
    max_skipped_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    """Part of the files that may be left out until the operator gets a notice."""


class TransferConfig(Config, frozen=True):
    """Sizes and timers of blob transfers. Every default fits the smallest broker that is named in the protocol."""

    chunk_bytes: Annotated[int, msgspec.Meta(ge=2**12, le=2**18)] = 2**17
    credit_chunks: Annotated[int, msgspec.Meta(ge=2, le=500)] = 64
    """Chunks that all senders together may have on their way to this process."""
    window_chunks: Annotated[int, msgspec.Meta(ge=1, le=500)] = 500
    """Chunks of a model that a device asks for at once: half the smallest default queue of any broker."""
    merge_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 0.25
    """How long the coordinator gathers wishes before it publishes their union."""
    repair_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 2.0
    """Silence after which a receiver asks again; doubles up to `repair_max_s`."""
    repair_max_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0
    inbox_bytes: Annotated[int, msgspec.Meta(ge=2**20, le=2**34)] = 2**27
    """Messages that may wait in this process; what comes on top is dropped, and asked for again."""


def load(path: Path, schema: type[T]) -> T:
    """Read `path` into `schema`; raises ConfigError with one sentence that names file, key and cure."""
    document = parse(read_text(path, "the configuration"), str(path))
    return _convert(Document({}) if document.plain is None else document, schema, str(path))


def convert(plain: Any, schema: type[T], source: str) -> T:
    """Validate already parsed YAML; `source` names it in the ConfigError."""
    return _convert(Document(plain), schema, source)


def _convert(document: Document, schema: type[T], source: str) -> T:
    try:
        return msgspec.convert(document.plain, schema)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {explain(str(error), schema, document)}") from error


def read_text(path: Path, what: str) -> str:
    """Read a small text file in UTF-8, without a byte order mark; raises ConfigError that says what it is to be."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read {what}: {error.strerror}") from error
    if len(data) > MAX_TEXT_BYTES:
        raise ConfigError(f"{path}: cannot read {what}: it is larger than {MAX_TEXT_BYTES >> 10} KiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot read {what}: it is not UTF-8 text; save it as UTF-8") from error


def locate(secret: str) -> Path:
    """Find a secret file: one of its name that systemd hands over by LoadCredential beats the path, unless blank."""
    handed = os.environ.get("CREDENTIALS_DIRECTORY")
    credential = Path(handed or "", Path(secret).name)
    is_handed = handed is not None and credential.is_file() and credential.read_bytes().strip()
    return credential if is_handed else Path(secret)


def read_password(broker: BrokerConfig) -> str | None:
    """Read the password file of `broker`, if it names one; raises ConfigError."""
    if broker.password_file is None:
        return None
    try:
        return read_text(locate(broker.password_file), "the password").strip()
    except ConfigError as error:
        raise ConfigError(f"broker.password_file: {error}") from error


__all__ = [
    "BrokerConfig",
    "Config",
    "DataConfig",
    "DeviceId",
    "FilePath",
    "Folders",
    "Host",
    "SigningConfig",
    "TlsConfig",
    "TransferConfig",
    "checked_fields",
    "convert",
    "home_path",
    "load",
    "locate",
    "read_password",
    "read_text",
]
