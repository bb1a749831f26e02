"""Reads the JSON of a request body: ordinary bodies with the standard library's parser, the rest with json_reader.

Second step of a request on the REST line. Pure and thread-safe; holds the GIL, so large bodies belong in a pool.
Source: TensorFlow Serving's util/json_tensor.cc, which calls RapidJSON.

The standard library's parser is taken only where it cannot differ from TensorFlow Serving's. What it refuses (also for
nesting too deep), and what might hold a number beyond double or half a surrogate pair, is read again by json_reader,
which knows those rules, the special numbers and the error texts.
"""

import json
import re

from tensorgate.gateway.rest.json_reader import read_json
from tensorgate.gateway.rest.json_value import JsonValue, make_object
from tensorgate.protos.status_codes import Code, ServingError

_BYTE_ORDER_MARK = "\ufeff"
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder(object_pairs_hook=make_object)

# Digits become "0", "E" becomes "e" and "+" goes: then two plain searches find every number that double might not hold.
_NUMBER_SHAPES = bytes.maketrans(b"123456789E", b"000000000e")
_LARGE_EXPONENT = b"e000"
_LARGE_INTEGER = b"0" * 309

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
# One escape after the other; only half of a surrogate pair fills the group.
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F])|.)", re.DOTALL)


def parse_json(body: bytes) -> JsonValue:
    """The JSON value a body begins with; text behind it is ignored, of equal keys the first counts.

    Bytes that are not UTF-8 come out as surrogate escapes. Numbers without point and exponent are int, others float.
    Raises ServingError(INVALID_ARGUMENT, "JSON Parse error: …").
    """
    if not body:
        raise ServingError(Code.INVALID_ARGUMENT, "JSON Parse error: The document is empty")
    text = body.decode("utf-8", errors="surrogateescape")
    start = 1 if text.startswith(_BYTE_ORDER_MARK) else 0
    if _may_be_read_differently(body):
        return read_json(text, start)
    space = _SPACE.match(text, start)
    try:
        value: JsonValue
        value, _ = _DECODER.raw_decode(text, start if space is None else space.end())
    except (ValueError, RecursionError):
        # ValueError is also what integers of thousands of digits raise.
        return read_json(text, start)
    # At the root the standard library takes "1.x" for 1 and text behind it; an array or object shows such a fault.
    return value if isinstance(value, dict | list) else read_json(text, start)


def _may_be_read_differently(body: bytes) -> bool:
    """Whether the standard library could accept something that must be refused. May say yes too often, never no."""
    shapes = body.translate(_NUMBER_SHAPES, b"+")
    if _LARGE_EXPONENT in shapes or _LARGE_INTEGER in shapes:
        return True
    if _SURROGATE_ESCAPE.search(body) is None:
        return False
    return any(escape.group(1) for escape in _ESCAPE.finditer(body))
