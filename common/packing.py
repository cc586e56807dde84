"""Structs as maps of msgpack or JSON without the fields that have their defaults: the base of all messages. Pure."""

from functools import cache
from typing import Any

import msgpack
import msgspec

from common.errors import PeerError

MALFORMED = (ValueError, TypeError, RecursionError, OverflowError, msgpack.UnpackException)
"""What decoding raises for bytes that are no message."""


class Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A message, or a part of one; a message's tag is its class name."""


def pack(message: Wire) -> bytes:
    """Write a struct as a msgpack map without the fields that have their defaults."""
    packed: bytes = msgpack.packb(plain(message), use_bin_type=True)
    return packed


def plain(message: Wire) -> dict[str, Any]:
    """Return the fields of a struct that differ from their defaults, as plain data."""
    return sparse(message, msgspec.to_builtins(message, builtin_types=(bytes,)))


def unpack(packed: bytes, expected: Any) -> Any:
    """Read a msgpack map as `expected`; raises PeerError for anything else."""
    try:
        # Lengths are bounded by the payload itself, so a short bomb cannot ask for much memory.
        return convert(msgpack.unpackb(packed, raw=False, strict_map_key=True, use_list=True), expected)
    except MALFORMED as error:
        raise PeerError(f"not a valid message: {str(error)[:200]}") from error


def convert(unpacked: Any, expected: Any) -> Any:
    """Turn what msgpack held into `expected`. Text does not stand for bytes, as it does in msgspec's JSON (base64)."""
    return msgspec.convert(unpacked, expected, builtin_types=(bytes,))


@cache
def _defaults(kind: Any) -> dict[str, Any]:
    """Return the fields of a struct that have a default, with the default as plain data."""
    found = {}
    for field in msgspec.structs.fields(kind):
        if not field.required:
            value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            found[field.name] = msgspec.to_builtins(value)
    return found


def sparse(part: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Take the fields out of `values` that have their defaults: msgspec leaves out identical ones, not equal ones."""
    defaults: dict[str, Any] = _defaults(part.__class__)
    for name in part.__struct_fields__:
        if isinstance(inner := getattr(part, name), Wire):
            values[name] = sparse(inner, values.get(name, {}))
        if name in defaults and name in values and values[name] == defaults[name]:
            del values[name]
    return values
