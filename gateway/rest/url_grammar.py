"""The grammar of the REST API's URLs, as pure functions from verb and raw path to a route.

First step of a request on the REST line, before a body is looked at; any thread.
Source: TensorFlow Serving's model_servers/http_rest_api_handler.cc and http_rest_api_util.cc (the two patterns).

One difference is deliberate: TensorFlow Serving matches path and query together, so that any query string makes an API
URL malformed or part of a model's name. Here the query is ignored; only the text about a malformed request repeats it.
"""

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from tensorgate.protos.status_codes import Code, ServingError

API_PREFIX = b"/v1/"
INT64_MAX = 2**63 - 1

_VERSION_OR_LABEL = rb"(?:(?:/versions/([0-9]+))|(?:/labels/([^/:]+)))?"
_INFERENCE_PATTERN = re.compile(
    rb"/v1/models/([^/:]+)" + _VERSION_OR_LABEL + rb":(classify|regress|predict)", re.IGNORECASE
)
_MODEL_PATTERN = re.compile(rb"/v1/models(?:/([^/:]+))?" + _VERSION_OR_LABEL + rb"(?:/(metadata))?", re.IGNORECASE)
# Clients ask for the same few again and again.
_NUM_KNOWN_ROUTES = 256
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class InferenceMethod(Enum):
    """What stands behind the colon of an inference URL; compared with its case, although the pattern ignores case."""

    PREDICT = "predict"
    CLASSIFY = "classify"
    REGRESS = "regress"


@dataclass(frozen=True, slots=True)
class ModelAddress:
    """Which model a URL names. At most one of version and version_label is set; neither means the latest version.

    Bytes of the URL that are not UTF-8 are kept as surrogate escapes, so that an error text can repeat them.
    """

    name: str
    version: int | None = None
    version_label: str | None = None


@dataclass(frozen=True, slots=True)
class InferenceRoute:
    """POST …/NAME[/versions/V|/labels/L]:METHOD."""

    model: ModelAddress
    method: InferenceMethod


@dataclass(frozen=True, slots=True)
class StatusRoute:
    """GET …/NAME[/versions/V|/labels/L]."""

    model: ModelAddress


@dataclass(frozen=True, slots=True)
class MetadataRoute:
    """GET …/NAME[/versions/V|/labels/L]/metadata."""

    model: ModelAddress


@dataclass(frozen=True, slots=True)
class SilentRefusal:
    """A refusal that clients see as a status number with an empty body, where every other error has an error JSON."""

    error: ServingError


Route: TypeAlias = InferenceRoute | StatusRoute | MetadataRoute | SilentRefusal


def is_api_path(raw_path: bytes) -> bool:
    """Whether the path belongs to the API at all; `/v1` without a slash behind it does not."""
    return raw_path[: len(API_PREFIX)].lower() == API_PREFIX


def has_broken_escape(raw_path: bytes) -> bool:
    """Whether a percent sign lacks its two hexadecimal digits; such a URL is refused before any page sees it."""
    return _BROKEN_ESCAPE.search(raw_path) is not None


@lru_cache(_NUM_KNOWN_ROUTES)
def parse_route(verb: str, raw_path: bytes, query_string: bytes = b"") -> Route:
    """What a request on an API path asks for.

    raw_path is the path as sent, still percent-encoded: names are decoded after matching, so that an encoded slash or
    colon can be part of a name. Raises ServingError(INVALID_ARGUMENT) for what the grammar does not know.
    """
    if verb == "POST":
        found = _INFERENCE_PATTERN.fullmatch(raw_path)
        if found is not None:
            name, version, label, method = found.groups()
            # The URL is judged before the method's case is, so a version that is too large wins over ":PREDICT".
            address = _model_address(name, version, label)
            if isinstance(address, SilentRefusal):
                return address
            for known in InferenceMethod:
                if method == known.value.encode():
                    return InferenceRoute(address, known)
    elif verb == "GET":
        found = _MODEL_PATTERN.fullmatch(raw_path)
        if found is not None:
            name, version, label, page = found.groups()
            address = _model_address(name or b"", version, label)
            if isinstance(address, SilentRefusal):
                return address
            if not address.name:
                raise ServingError(Code.INVALID_ARGUMENT, "Missing model name in request.")
            # "/METADATA" matches the pattern and is answered as status, since only this spelling means metadata.
            return MetadataRoute(address) if page == b"metadata" else StatusRoute(address)
    raise _malformed(verb, raw_path, query_string)


def _model_address(name: bytes, version: bytes | None, label: bytes | None) -> ModelAddress | SilentRefusal:
    """The address that the captured parts spell, or the refusal of a version that int64 cannot hold."""
    number = None
    if version is not None:
        # 19 digits hold INT64_MAX; the length is checked first, because int() refuses thousands of digits by itself.
        digits = version.lstrip(b"0") or b"0"
        if len(digits) > 19 or int(digits) > INT64_MAX:
            text = f"Failed to convert version: {version.decode()} to numeric."
            return SilentRefusal(ServingError(Code.INVALID_ARGUMENT, text))
        number = int(digits)
    return ModelAddress(_decode(name), number, None if label is None else _decode(label))


def _malformed(verb: str, raw_path: bytes, query_string: bytes) -> ServingError:
    url = raw_path + (b"?" + query_string if query_string else b"")
    return ServingError(
        Code.INVALID_ARGUMENT, f"Malformed request: {verb} {url.decode('utf-8', errors='surrogateescape')}"
    )


def _decode(part: bytes) -> str:
    return unquote_to_bytes(part).decode("utf-8", errors="surrogateescape")
