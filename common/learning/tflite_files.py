"""What a TFLite file computes last, read out of its FlatBuffer as data: no library for it is on a device."""

import struct
from collections.abc import Iterator

from common.errors import DataError

IDENTIFIER = b"TFL3"
MAX_OPERATORS = 100_000
PROBABILITY = {14: "LOGISTIC", 25: "SOFTMAX"}
"""TFLite's numbers of the operators that give probabilities."""
SAME_VALUE = frozenset({6, 22, 43, 45, 65, 70, 114})
"""Those that change a value's form only: DEQUANTIZE, RESHAPE, SQUEEZE, STRIDED_SLICE, SLICE, EXPAND_DIMS, QUANTIZE."""
OTHERS = {
    0: "ADD",
    3: "CONV_2D",
    9: "FULLY_CONNECTED",
    18: "MUL",
    19: "RELU",
    21: "RELU6",
    28: "TANH",
    40: "MEAN",
    41: "SUB",
    42: "DIV",
}
"""Names of those that models without a sigmoid end in most often."""


def check_result(content: bytes) -> None:
    """See that a model has one output, and that it is made by an operator that gives probabilities.

    Operators behind it that change its form only are passed over: a quantised model ends in DEQUANTIZE.
    Raises DataError for another model, or for bytes that are none.
    """
    try:
        outputs, makers = _read(content)
    except (struct.error, MemoryError) as error:
        raise DataError("it is not a TFLite model, or a damaged one") from error
    if len(outputs) != 1:
        raise DataError(f"the model has {len(outputs)} outputs where one probability is needed")
    tensor, code = outputs[0], None
    for _ in range(len(makers) + 1):
        code, tensor = makers.get(tensor, (None, -1))
        if code not in SAME_VALUE:
            break
    if code not in PROBABILITY:
        found = "nothing" if code is None else OTHERS.get(code, f"operator {code}")
        raise DataError(
            f"the model's last operator is {found} where LOGISTIC or SOFTMAX gives a probability; "
            "end the model in a sigmoid"
        )


def _read(content: bytes) -> tuple[list[int], dict[int, tuple[int, int]]]:
    """The first graph's outputs; for each tensor that is computed the operator's number and its first input."""
    if content[4:8] != IDENTIFIER:
        raise struct.error
    model = _number(content, "I", 0)
    codes = [_code(content, table) for table in _tables(content, model, 1)]
    graph = next(_tables(content, model, 2), None)
    if graph is None:
        raise struct.error
    makers: dict[int, tuple[int, int]] = {}
    for operator in _tables(content, graph, 3):
        place = _field(content, operator, 0)
        index = _number(content, "I", place) if place else 0
        if index >= len(codes):
            raise struct.error
        given = _integers(content, operator, 1)
        for tensor in _integers(content, operator, 2):
            makers[tensor] = codes[index], given[0] if given else -1
    return _integers(content, graph, 2), makers


def _code(content: bytes, table: int) -> int:
    """An operator's number, which older files hold in a byte."""
    old, new = _field(content, table, 0), _field(content, table, 3)
    return max(_number(content, "b", old) if old else 0, _number(content, "i", new) if new else 0)


def _tables(content: bytes, table: int, field: int) -> Iterator[int]:
    """The tables in a vector, which is a field of `table`."""
    for place in _vector(content, table, field):
        yield place + _number(content, "I", place)


def _integers(content: bytes, table: int, field: int) -> list[int]:
    return [_number(content, "i", place) for place in _vector(content, table, field)]


def _vector(content: bytes, table: int, field: int) -> range:
    """The places of a vector's elements of 4 bytes each; an absent vector has none."""
    place = _field(content, table, field)
    if not place:
        return range(0)
    start = place + _number(content, "I", place)
    count = _number(content, "I", start)
    if count > min(MAX_OPERATORS, len(content) // 4):
        raise struct.error
    return range(start + 4, start + 4 + 4 * count, 4)


def _field(content: bytes, table: int, number: int) -> int:
    """The place of a table's field; 0 where it has its default."""
    layout = table - _number(content, "i", table)
    slot = 4 + 2 * number
    offset = _number(content, "H", layout + slot) if slot < _number(content, "H", layout) else 0
    return table + offset if offset else 0


def _number(content: bytes, form: str, place: int) -> int:
    if place < 0:  # which would count from the end
        raise struct.error
    (found,) = struct.unpack_from(f"<{form}", content, place)
    return int(found)
