"""YAML as people write it in configuration files: read to plain values, and written so that it reads the same again.

Stricter than PyYAML's safe loader: a key stands once, aliases neither contain themselves nor multiply
without end, and text is text that UTF-8 can carry. Numbers are those of YAML 1.2 as well: `1e-3`.
"""

import re
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.composer import ComposerError

from common.errors import ConfigError

_MALFORMED = (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""What PyYAML raises: for the date 2024-99-99 a ValueError, for `!!bool x` a KeyError."""
MAX_VALUES = 100_000
"""Values of a document, counted as often as aliases repeat them."""
_FLOAT_TAG = "tag:yaml.org,2002:float"
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$")
_FLOAT_STARTS = list("-+.0123456789")


@dataclass(frozen=True)
class Document:
    """The plain values of a text, and its nodes, which know how each value was written."""

    plain: Any
    node: yaml.Node | None = None

    def written(self, key: str) -> str | None:
        """Return the text of the single value at a dotted key such as `data.label_names[0]`; None where there is none.

        Quotes do not belong to it.
        """
        node = self.node
        for part in re.findall(r"[^.\[\]]+", key):
            if isinstance(node, yaml.MappingNode):
                node = next((value for name, value in node.value if name.value == part), None)
            elif isinstance(node, yaml.SequenceNode) and part.isdecimal() and int(part) < len(node.value):
                node = node.value[int(part)]
            else:
                return None
        return str(node.value) if isinstance(node, yaml.ScalarNode) else None


def parse(text: str, source: str) -> Document:
    """Read `text`; `source` names it in the ConfigError for what is not valid."""
    try:
        reader = _Reader(text)
        node = reader.get_single_node()
        return Document(None if node is None else reader.construct_document(node), node)
    except _MALFORMED as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", f"a value cannot be read ({error})")).split())
        raise ConfigError(f"{source}{place}: not valid YAML: {problem}") from error


def dump(document: Any) -> str:
    """Write plain values so that `parse` gives them again, keys in their order."""
    return yaml.dump(document, Dumper=_Writer, sort_keys=False)


class _Reader(yaml.SafeLoader):
    """Counts values, and refuses what is said twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        start = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML leaves it untyped
        node = super().compose_node(parent, index)
        if node is None:
            return None
        if id(node) not in self._sizes:
            raise ComposerError(None, None, "an alias stands within what it names", start)
        if self._sizes[id(node)] > MAX_VALUES:
            raise ComposerError(None, None, f"it holds more than {MAX_VALUES:,} values", start)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            raise ComposerError(None, None, "half a character cannot be written", node.start_mark)
        self._sizes[id(node)] = 1
        return node

    def compose_sequence_node(self, anchor: Any) -> yaml.SequenceNode:
        node = super().compose_sequence_node(anchor)
        self._sizes[id(node)] = 1 + sum(self._sizes[id(item)] for item in node.value)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        self._sizes[id(node)] = 1 + sum(self._sizes[id(key)] + self._sizes[id(value)] for key, value in node.value)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (name := (key.tag, key.value)) in lines:
                problem = f"the key {key.value!r} stands twice, first in line {lines[name]}; delete one of the two"
                raise ComposerError(None, None, problem, key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                lines[name] = key.start_mark.line + 1
        return node


class _Writer(yaml.SafeDumper):
    """Puts quotes around text that `_Reader` would take for a number."""


_Reader.add_implicit_resolver(_FLOAT_TAG, _FLOAT, _FLOAT_STARTS)
_Writer.add_implicit_resolver(_FLOAT_TAG, _FLOAT, _FLOAT_STARTS)
