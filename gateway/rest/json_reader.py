"""A JSON reader that accepts, refuses and explains exactly as TensorFlow Serving's parser does, at any depth.

Stands behind json_parse, which reads ordinary bodies with the standard library's parser: this one reads the rest, that
is whatever the standard library refuses or might understand differently. It is iterative, so 500,000 nested lists are
read or refused like anything else. Pure, any thread; many times slower than the standard library's.

Source: RapidJSON's Reader with the flags iterative, NaN-and-Inf and stop-when-done; its error texts and offsets.
"""

import math
import re
from typing import NoReturn

from tensorgate.gateway.rest.json_value import JsonValue, make_object
from tensorgate.protos.status_codes import Code, ServingError

DOCUMENT_EMPTY = "The document is empty."
INVALID_VALUE = "Invalid value."
MISSING_NAME = "Missing a name for object member."
MISSING_COLON = "Missing a colon after a name of object member."
MISSING_COMMA_IN_OBJECT = "Missing a comma or '}' after an object member."
MISSING_COMMA_IN_ARRAY = "Missing a comma or ']' after an array element."
MISSING_QUOTE = "Missing a closing quotation mark in string."
INVALID_ESCAPE = "Invalid escape character in string."
INVALID_HEX = "Incorrect hex digit after \\u escape in string."
INVALID_SURROGATE = "The surrogate pair in string is invalid."
MISSING_FRACTION = "Miss fraction part in number."
MISSING_EXPONENT = "Miss exponent in number."
NUMBER_TOO_BIG = "Number too big to be stored in double."

_SPACE = re.compile(r"[ \t\n\r]*")
_PLAIN_CHARACTERS = re.compile(r'[^"\\\x00-\x1f]*')
_INTEGER_PART = re.compile(r"0|[1-9][0-9]*")
_DIGITS = re.compile(r"[0-9]+")
_HEX4 = re.compile(r"[0-9A-Fa-f]{4}")
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_KEYWORDS: dict[str, tuple[str, bool | None]] = {"t": ("true", True), "f": ("false", False), "n": ("null", None)}
_MAX_DOUBLE_EXPONENT = 308
_UINT64_MAX = 2**64 - 1
_INT64_MIN = -(2**63)
# What the end of the text reads as; a NUL in the text ends the document just the same.
_END = "\0"


class _OpenContainer:
    """An array or object whose closing bracket has not been read."""

    __slots__ = ("elements", "is_object", "key", "members")

    def __init__(self, *, is_object: bool) -> None:
        self.is_object = is_object
        self.elements: list[JsonValue] = []
        self.members: list[tuple[str, JsonValue]] = []
        self.key = ""


def read_json(text: str, start: int = 0) -> JsonValue:
    """The JSON value at `start` of the text; whatever follows it is ignored.

    text holds bytes that are not UTF-8 as surrogate escapes, which pass into strings unchanged. Raises
    ServingError(INVALID_ARGUMENT, "JSON Parse error: <text> at offset: <bytes from the beginning of the text>").
    """
    return _Reader(text, start).read()


class _Reader:
    def __init__(self, text: str, start: int) -> None:
        self._text = text
        self._at = start

    def read(self) -> JsonValue:
        """Reads one value. The loop's top is where a value must begin; its end is where one has just been completed."""
        stack: list[_OpenContainer] = []
        self._skip_space()
        if self._peek() in ",:]}" + _END:
            self._fail(DOCUMENT_EMPTY)
        while True:
            character = self._peek()
            if character in "[{":
                self._at += 1
                self._skip_space()
                container = _OpenContainer(is_object=character == "{")
                if self._peek() != ("}" if container.is_object else "]"):
                    if container.is_object:
                        container.key = self._member_name()
                    stack.append(container)
                    continue
                self._at += 1
                value: JsonValue = {} if container.is_object else []
            else:
                value = self._scalar(character)
            while stack:
                container = stack[-1]
                self._skip_space()
                character = self._peek()
                if container.is_object:
                    container.members.append((container.key, value))
                    if character == ",":
                        self._at += 1
                        self._skip_space()
                        container.key = self._member_name()
                        break
                    if character != "}":
                        self._fail(MISSING_COMMA_IN_OBJECT)
                    value = make_object(container.members)
                else:
                    container.elements.append(value)
                    if character == ",":
                        self._at += 1
                        self._skip_space()
                        break
                    if character != "]":
                        self._fail(MISSING_COMMA_IN_ARRAY)
                    value = container.elements
                self._at += 1
                stack.pop()
            else:
                return value

    def _member_name(self) -> str:
        """A member's name and the colon behind it; stands where the value begins afterwards."""
        if self._peek() != '"':
            self._fail(MISSING_NAME)
        name = self._string()
        self._skip_space()
        if self._peek() != ":":
            self._fail(MISSING_COLON)
        self._at += 1
        self._skip_space()
        return name

    def _scalar(self, character: str) -> JsonValue:
        if character == '"':
            return self._string()
        if character in _KEYWORDS:
            word, value = _KEYWORDS[character]
            self._expect(word)
            return value
        return self._number()

    def _number(self) -> int | float:
        text, start = self._text, self._at
        sign = -1.0 if self._peek() == "-" else 1.0
        if sign < 0:
            self._at += 1
        integer_part = _INTEGER_PART.match(text, self._at)
        if integer_part is None:
            return sign * self._special_number()
        self._at = integer_part.end()
        num_fraction_digits = 0
        is_double = False
        if self._peek() == ".":
            self._at += 1
            num_fraction_digits = len(self._digits(MISSING_FRACTION))
            is_double = True
        if self._peek() in "eE":
            self._at += 1
            is_negative = self._peek() == "-"
            if self._peek() in "+-":
                self._at += 1
            exponent = self._digits(MISSING_EXPONENT).lstrip("0")
            limit = _MAX_DOUBLE_EXPONENT + num_fraction_digits
            if not is_negative and (len(exponent) > len(str(limit)) or int(exponent or "0") > limit):
                self._fail(NUMBER_TOO_BIG, start)
            is_double = True
        token = text[start : self._at]
        # The length comes first: int() refuses thousands of digits, and no int64 or uint64 has more than 20.
        if not is_double and len(token) <= 20 and _INT64_MIN <= int(token) <= _UINT64_MAX:
            return int(token)
        number = float(token)
        if math.isinf(number):
            self._fail(NUMBER_TOO_BIG, start)
        return number

    def _special_number(self) -> float:
        if self._peek() == "N":
            self._expect("NaN")
            return math.nan
        if self._peek() == "I":
            self._expect("Inf")
            if self._peek() == "i":
                self._expect("inity")
            return math.inf
        self._fail(INVALID_VALUE)

    def _digits(self, missing: str) -> str:
        digits = _DIGITS.match(self._text, self._at)
        if digits is None:
            self._fail(missing)
        self._at = digits.end()
        return digits.group()

    def _string(self) -> str:
        text = self._text
        self._at += 1
        pieces: list[str] = []
        while True:
            plain = _PLAIN_CHARACTERS.match(text, self._at)
            if plain is not None:
                pieces.append(plain.group())
                self._at = plain.end()
            character = self._peek()
            if character == '"':
                self._at += 1
                return "".join(pieces)
            if character == _END:
                self._fail(MISSING_QUOTE)
            if character != "\\":
                self._fail(INVALID_ESCAPE)
            pieces.append(self._escape())

    def _escape(self) -> str:
        """The character an escape stands for; errors are reported at its backslash."""
        start = self._at
        self._at += 1
        character = self._peek()
        self._at += 1
        if character in _ESCAPES:
            return _ESCAPES[character]
        if character != "u":
            self._fail(INVALID_ESCAPE, start)
        unit = self._hex4(start)
        if 0xD800 <= unit <= 0xDFFF:
            if unit > 0xDBFF or not self._text.startswith("\\u", self._at):
                self._fail(INVALID_SURROGATE, start)
            self._at += 2
            second = self._hex4(start)
            if not 0xDC00 <= second <= 0xDFFF:
                self._fail(INVALID_SURROGATE, start)
            unit = 0x10000 + ((unit - 0xD800) << 10) + (second - 0xDC00)
        return chr(unit)

    def _hex4(self, escape_start: int) -> int:
        digits = _HEX4.match(self._text, self._at)
        if digits is None:
            self._fail(INVALID_HEX, escape_start)
        self._at = digits.end()
        return int(digits.group(), 16)

    def _expect(self, word: str) -> None:
        """Steps over the word; fails at the first character that differs from it."""
        for character in word:
            if self._peek() != character:
                self._fail(INVALID_VALUE)
            self._at += 1

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else _END

    def _skip_space(self) -> None:
        space = _SPACE.match(self._text, self._at)
        if space is not None:
            self._at = space.end()

    def _fail(self, text: str, at: int | None = None) -> NoReturn:
        before = self._text[: self._at if at is None else at]
        offset = len(before.encode("utf-8", errors="surrogateescape"))
        raise ServingError(Code.INVALID_ARGUMENT, f"JSON Parse error: {text} at offset: {offset}")
