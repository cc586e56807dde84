"""What msgspec says of a value that does not fit, as a sentence with the key, and with what to write instead."""

import difflib
import re
from typing import Any

import msgspec

from common.names import name_fault
from common.topics import NAME_PATTERN
from common.yaml_text import Document

_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "object": "keys with values",
    "array": "a list",
    "null": "nothing",
    "date": "a date",
    "datetime": "a date",
    "bytes": "bytes",
}


def explain(message: str, schema: Any, document: Document) -> str:
    """Return a sentence that names the dotted key and, for an unknown key or value, the nearest known one."""
    if match := re.match(r".* - at `key` in `\$(.*)`", message):
        return f"a key below {match[1].lstrip('.') or '(top level)'!r} is not text; put it in quotes"
    text, _, where = message.partition(" - at `$")
    key = where.rstrip("`").lstrip(".").replace("[...]", "")
    if match := re.match(r"Object contains unknown field `(.*)`", text):
        known = _known_at(schema, document.plain, key)
        return f"unknown key {'.'.join(filter(None, [key, match[1]]))!r}; {_hint(match[1], known)}"
    if match := re.match(r"Invalid (?:enum )?value '?(.*?)'?$", text):
        return f"key {key!r}: there is no {match[1]!r}; {_hint(match[1], _known_at(schema, document.plain, key))}"
    if match := re.match(r"Object missing required field `(.*)`", text):
        return f"the key {'.'.join(filter(None, [key, match[1]]))!r} is missing; add it"
    if match := re.match(r"field `(\w+)`: (.*)", text, re.DOTALL):
        return f"key {'.'.join(filter(None, [key, match[1]]))!r}: {match[2]}"
    return f"key {key or '(top level)'!r}: {_misfit(text, schema, document, key)}"


def _misfit(text: str, schema: Any, document: Document, key: str) -> str:
    """Say what is expected and what is there instead, in words."""
    info, value = _at(schema, document.plain, key)
    if isinstance(value, str) and any(getattr(kind, "pattern", None) == NAME_PATTERN for kind in _kinds(info)):
        return name_fault(value)
    if not (match := re.match(r"Expected `([\w |]+)`(?:, got `(\w+)`)?(.*)", text)):
        return f"{text[0].lower()}{text[1:]}"
    wanted = [kind for kind in match[1].split(" | ") if kind != "null"]
    expected = f"expected {' or '.join(_WORDS.get(kind, kind) for kind in wanted)}"
    if match[2] is None:
        return "it has a form that is not allowed" if "regex" in match[3] else expected + match[3]
    return f"{expected}, got {_WORDS.get(match[2], match[2])}{_cure(wanted, match[2], document.written(key))}"


def _cure(wanted: list[str], got: str, written: str | None) -> str:
    """What to write in the place of `written`."""
    if written is None or got in {"object", "array"}:
        return ""
    if "str" in wanted and got == "null":
        return "; write it, or delete the key"
    if "str" in wanted:
        return f": YAML reads {written[:40]} so; put it in quotes: '{written[:40]}'"
    if got == "str" and {"int", "float", "bool"} & set(wanted):
        return f" {written[:40]!r}; write it without quotes, and a fraction with a point"
    return ""


def _hint(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else f"known here are {', '.join(sorted(known))}"


def _known_at(schema: Any, plain: Any, key: str) -> list[str]:
    """Names that may stand at the dotted `key` below `schema`: a struct's fields, the tags of several, or values."""
    info, value = _at(schema, plain, key)
    if isinstance(info, list):
        return info
    literals = [name for kind in _kinds(info) if isinstance(kind, msgspec.inspect.LiteralType) for name in kind.values]
    return [str(name) for name in literals] or [field.encode_name for field in _chosen(_structs(info), value)]


def _at(schema: Any, plain: Any, key: str) -> tuple[Any, Any]:
    """What `schema` and `plain` hold at the dotted `key`; in the place of the first, the tags where it is a tag's."""
    info, value = msgspec.inspect.type_info(schema), plain
    for part in re.findall(r"[^.\[\]]+", key):
        structs = _structs(info)
        if part in {struct.tag_field for struct in structs}:
            return [str(struct.tag) for struct in structs], None
        fields = {field.encode_name: field.type for field in _chosen(structs, value)}
        info = fields[part] if part in fields else _item(info, part)
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return info, value


def _item(info: Any, part: str) -> Any:
    """The type of an item of a list, or `info` itself."""
    for kind in _kinds(info):
        if part.isdecimal() and isinstance(kind, msgspec.inspect.VarTupleType):
            return kind.item_type
        if part.isdecimal() and isinstance(kind, msgspec.inspect.TupleType) and int(part) < len(kind.item_types):
            return kind.item_types[int(part)]
    return info


def _kinds(info: Any) -> list[Any]:
    """The types that a union is made of, without what is only noted about them."""
    types = info.types if isinstance(info, msgspec.inspect.UnionType) else (info,)
    return [kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind for kind in types]


def _structs(info: Any) -> list[Any]:
    return [kind for kind in _kinds(info) if isinstance(kind, msgspec.inspect.StructType)]


def _chosen(structs: list[Any], plain: Any) -> tuple[Any, ...]:
    """Return the fields of the struct that the tag in `plain` names, else of the first."""
    named = [s for s in structs if isinstance(plain, dict) and s.tag is not None and plain.get(s.tag_field) == s.tag]
    return next((struct.fields for struct in named or structs), ())
