"""What the head of a request says, and errors as answers."""

import pytest

from tensorgate.gateway.rest.http_messages import RequestHead, error_answer
from tensorgate.protos.status_codes import Code, ServingError


def head_with(*headers: tuple[bytes, bytes]) -> RequestHead:
    head = RequestHead("POST", b"/")
    for name, value in headers:
        head.add_header(name, value)
    return head


def test_names_of_headers_have_no_case() -> None:
    head = head_with((b"CONTENT-length", b"12"), (b"Expect", b"100-Continue"), (b"origin", b"http://x"))
    assert (head.content_length, head.expects_continue, head.has_http_origin) == (12, True, True)
    assert head_with((b"X-Other", b"1")) == RequestHead("POST", b"/")


@pytest.mark.parametrize(
    ("value", "accepts"),
    [
        (b"gzip", True),
        (b"deflate, gzip;q=1.0, *;q=0.5", True),
        (b"br;q=1.0,GZIP ; q=0.001", True),
        (b"x-gzip", True),
        (b"gzip;q=0", False),
        (b"gzip; q=0.000", False),
        (b"identity", False),
        (b"*", False),
        (b"", False),
        (b"gzipped, notgzip", False),
    ],
)
def test_gzip_answers_are_for_those_who_name_gzip(value: bytes, accepts: bool) -> None:
    assert head_with((b"Accept-Encoding", value)).accepts_gzip is accepts


@pytest.mark.parametrize(
    ("value", "protobuf_type"),
    [
        (b"application/x-protobuf", b"application/x-protobuf"),
        (b"Application/Protobuf; messageType=x", b"application/protobuf"),
        (b"application/json", b""),
        (b"application/x-protobuffer", b""),
    ],
)
def test_protobuf_has_several_names(value: bytes, protobuf_type: bytes) -> None:
    assert head_with((b"Content-Type", value)).protobuf_type == protobuf_type


@pytest.mark.parametrize(("value", "priority"), [(b"high", 1), (b" LOW ", -1), (b"normal", 0), (b"9", 0), (b"", 0)])
def test_a_priority_is_one_of_three_and_anything_else_is_normal(value: bytes, priority: int) -> None:
    assert head_with((b"X-Priority", value)).priority == priority


@pytest.mark.parametrize("code", Code)
def test_what_passes_by_itself_is_to_be_tried_again_in_a_second(code: Code) -> None:
    answer = error_answer(ServingError(code, "m"))
    assert (dict(answer.headers).get(b"retry-after") == b"1") == (answer.status in (429, 503))


def test_an_error_is_written_as_pretty_json() -> None:
    answer = error_answer(ServingError(Code.NOT_FOUND, 'no "m", née\n/\udcff'))
    assert (answer.status, answer.content_type) == (404, b"application/json")
    assert answer.body == b'{\n    "error": "no \\"m\\", n\xc3\xa9e\\n/\xff"\n}'
