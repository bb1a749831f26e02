"""Bytes to requests: what the parser tells, in which order, and which requests it says are like most."""

from http import HTTPStatus

import pytest

from tensorgate.gateway.rest.http_messages import RequestHead
from tensorgate.gateway.rest.http_parser import RequestParser

POST = b"POST /a?b=c HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\n\r\nabc"


class Taker:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.is_deaf = False
        self.told: list[str] = []
        self.heads: list[RequestHead] = []
        self.is_deaf_after_head = False

    def take_begin(self) -> None:
        self.told.append("begin")

    def take_head(self, head: RequestHead, refusal: HTTPStatus | None, *, keep_alive: bool, is_http_1_0: bool) -> None:
        self.heads.append(head)
        version = "1.0" if is_http_1_0 else "1.1"
        told = f"{head.verb} {head.raw_path.decode()} {version}{'' if keep_alive else ' last'}"
        self.told.append(told if refusal is None else f"{told} {refusal.value}")
        self.is_deaf = self.is_deaf_after_head

    def take_body(self, body: bytes) -> None:
        self.told.append(body.decode())

    def take_end(self) -> None:
        self.told.append("end")

    def refuse_plainly(self, status: HTTPStatus) -> None:
        self.told.append(str(status.value))
        self.is_deaf = True


def parser_of(taker: Taker) -> RequestParser:
    return RequestParser(taker, max_head_bytes=200)


def test_a_request_is_told_in_the_order_of_its_parts_and_its_head_returned() -> None:
    taker = Taker()
    head = parser_of(taker).feed(POST, begins=True)
    assert taker.told == ["begin", "POST /a 1.1", "abc", "end"]
    assert head is taker.heads[0]
    assert (head.raw_path, head.query_string, head.content_length) == (b"/a", b"b=c", 3)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(POST[:-1], id="not whole"),
        pytest.param(POST + POST, id="two"),
        pytest.param(POST.replace(b"HTTP/1.1", b"HTTP/1.0"), id="of another version"),
        pytest.param(POST.replace(b"host: h", b"connection: upgrade\r\nupgrade: h2c"), id="with an offer"),
    ],
)
def test_no_head_is_returned_of_data_that_are_not_one_request_like_most(data: bytes) -> None:
    assert parser_of(Taker()).feed(data, begins=True) is None


def test_a_request_that_came_in_pieces_is_told_all_the_same_but_returned_never() -> None:
    taker = Taker()
    parser = parser_of(taker)
    assert [parser.feed(POST[i : i + 1], begins=i == 0) for i in range(len(POST))] == [None] * len(POST)
    assert taker.told == ["begin", "POST /a 1.1", "a", "b", "c", "end"]


def test_a_request_that_offers_another_protocol_is_read_to_its_end_and_so_is_the_next() -> None:
    taker = Taker()
    parser_of(taker).feed(POST.replace(b"host: h", b"connection: upgrade\r\nupgrade: h2c") + POST, begins=True)
    assert taker.told == ["begin", "POST /a 1.1", "abc", "end", "begin", "POST /a 1.1", "abc", "end"]


def test_who_is_deaf_is_told_nothing_more() -> None:
    taker = Taker()
    taker.is_deaf_after_head = True
    assert parser_of(taker).feed(POST + POST, begins=True) is None
    assert taker.told == ["begin", "POST /a 1.1"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x16\x03\x01\n", ["begin", "400"]),
        (b"BREW /a HTTP/1.1\r\n\r\n", ["begin", "501"]),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 300 + b"\r\n\r\n", ["begin", "GET / 1.1 431", "end"]),
    ],
)
def test_what_cannot_be_served_is_refused(data: bytes, told: list[str]) -> None:
    taker = Taker()
    assert parser_of(taker).feed(data, begins=True) is None
    assert taker.told == told


def test_a_head_without_end_is_refused_when_it_is_too_long() -> None:
    taker = Taker()
    parser = parser_of(taker)
    parser.feed(b"GET / HTTP/1.1\r\na: ", begins=True)
    for _ in range(20):
        parser.feed(b"b" * 10, begins=False)
    assert taker.told == ["begin"]
    parser.feed(b"b", begins=False)
    assert taker.told == ["begin", "431"]
