"""YAML to frozen, validated structs: an unknown key is an error that names the nearest one."""

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml

from common.errors import ConfigError
from common.limits import PACKET_LEAST
from common.messages import DeviceId, Label, Options

Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
PositiveSeconds = Annotated[float, msgspec.Meta(gt=0, le=1e7)]
T = TypeVar("T")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A section of a configuration file."""


class TlsConfig(Config, frozen=True):
    """Certificates for the broker connection: paths of PEM files. `locate` finds the key."""

    ca: str
    certificate: str | None = None
    key: str | None = None


class SigningConfig(Config, frozen=True):
    """Our Ed25519 key in PEM, which `locate` finds, and the file of those whose signatures count (`common.signing`)."""

    key: str
    peers: str


class BrokerConfig(Config, frozen=True):
    """Where the broker is, and how to log in. `protocol: auto` speaks MQTT 5 and falls back to 3.1.1."""

    host: str = "127.0.0.1"
    port: Port = 1883
    username: str | None = None
    password_file: str | None = None
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

    images: str | None = None
    labels: str | None = None
    """CSV `file,label` of the images to train on; without it every image under `images/<label>/`."""
    unseen: str | None = None
    """CSV or folder of images that are never trained on and serve to evaluate."""
    label_names: tuple[Label, Label] = ("no", "yes")
    """Negative first, positive second: 0 and 1 in a CSV."""
    loader: str | None = None
    """A loader of your own, as `package.module:function` (see `common.learning.seam`)."""
    options: Options = {}
    """Passed to that loader."""


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
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot read the configuration: {reason}") from error
    try:
        plain = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:  # ValueError: the date 2024-99-99
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise ConfigError(f"{path}{place}: not valid YAML: {problem}") from error
    if plain is None:
        plain = {}
    return convert(plain, schema, str(path))


def convert(plain: Any, schema: type[T], source: str) -> T:
    """Validate already parsed YAML; `source` names it in the ConfigError."""
    try:
        return msgspec.convert(plain, schema)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{source}: {_explain(str(error), schema, plain)}") from error


def _explain(message: str, schema: Any, plain: Any) -> str:
    """Turn msgspec's message into a sentence with the dotted key and, for an unknown key, the nearest known one."""
    if match := re.match(r".* - at `key` in `\$(.*)`", message):
        return f"a key below {match[1].lstrip('.') or '(top level)'!r} is not text; put it in quotes"
    text, _, where = message.partition(" - at `$")
    key = where.rstrip("`").lstrip(".").replace("[...]", "")
    if match := re.match(r"Object contains unknown field `(.*)`", text):
        known = _known_at(schema, plain, key)
        return f"unknown key {'.'.join(filter(None, [key, match[1]]))!r}; {_hint(match[1], known)}"
    if (match := re.match(r"Invalid value '(.*)'", text)) and (known := _known_at(schema, plain, key)):
        return f"key {key!r}: there is no {match[1]!r}; {_hint(match[1], known)}"
    if match := re.match(r"Object missing required field `(.*)`", text):
        return f"the key {'.'.join(filter(None, [key, match[1]]))!r} is missing; add it"
    return f"key {key or '(top level)'!r}: {text[0].lower()}{text[1:]}"


def _hint(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"known here are {', '.join(sorted(known))}"


def _known_at(schema: Any, plain: Any, key: str) -> list[str]:
    """Names that may stand at the dotted `key` below `schema`: a struct's fields, or the tags of several."""
    info = msgspec.inspect.type_info(schema)
    for part in filter(None, key.split(".")):
        structs = _structs(info)
        if part in {struct.tag_field for struct in structs}:
            return [str(struct.tag) for struct in structs]
        fields = {field.encode_name: field.type for field in _chosen(structs, plain)}
        info, plain = fields.get(part, info), plain.get(part) if isinstance(plain, dict) else None
    return [field.encode_name for field in _chosen(_structs(info), plain)]


def _structs(info: Any) -> list[Any]:
    types = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    return [kind for kind in types if isinstance(kind, msgspec.inspect.StructType)]


def _chosen(structs: list[Any], plain: Any) -> tuple[Any, ...]:
    """Return the fields of the struct that the tag in `plain` names, else of the first."""
    named = [s for s in structs if isinstance(plain, dict) and s.tag is not None and plain.get(s.tag_field) == s.tag]
    return next((struct.fields for struct in named or structs), ())


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
        return locate(broker.password_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"broker.password_file: cannot read {broker.password_file}: {error.strerror}") from error


__all__ = [
    "BrokerConfig",
    "Config",
    "DataConfig",
    "DeviceId",
    "SigningConfig",
    "TlsConfig",
    "TransferConfig",
    "convert",
    "load",
    "locate",
    "read_password",
]
