"""A connection: requests in, answers out in their order; clients that stall, break the rules or go away."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensorgate.gateway.dispatch.call import Cancellable
from tensorgate.gateway.rest import http_connection
from tensorgate.gateway.rest.http_application import BeginQuickly, Begun
from tensorgate.gateway.rest.http_arrival import ArrivalLimits
from tensorgate.gateway.rest.http_connection import HttpConnection
from tensorgate.gateway.rest.http_head import DateHeader
from tensorgate.gateway.rest.http_messages import Answer, RequestHead

LIMITS = ArrivalLimits(headers_s=20.0, body_s=30.0, idle_s=10_000.0, answer_s=60.0, max_head_bytes=1000)
MAX_BODY_BYTES = 200_000
HEAD = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """Keeps what is written; its client takes it at once unless the test says how much it has not taken."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.has_written_eof = False
        self.is_closed = False
        self.is_aborted = False
        self.is_reading_now = True
        self.num_unsent_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.written += data

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def get_write_buffer_size(self) -> int:
        return self.num_unsent_bytes

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_written_eof = True

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_reading_now = False

    def resume_reading(self) -> None:
        self.is_reading_now = True


class EchoApp:
    """Answers a POST with its body once ``may_answer`` is set, a GET with its path, and a DELETE with 405 at once."""

    max_body_bytes = MAX_BODY_BYTES

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.begun: list[RequestHead] = []
        self.num_cancelled = 0
        self.is_quick = True
        self.num_quick = 0

    def quick(self, head: RequestHead) -> BeginQuickly | None:
        return self._begin_quickly if head.verb == "POST" else None

    def _begin_quickly(self, body: bytes, on_answer: Callable[[Answer], None]) -> Cancellable | None:
        if not self.is_quick:
            return None
        self.num_quick += 1

        async def answer() -> None:
            on_answer(await self._answer([body]))

        return asyncio.ensure_future(answer())

    def begin(self, head: RequestHead) -> Begun:
        self.begun.append(head)
        if head.verb == "DELETE":
            return Answer(405, b"no")
        return self._answer if head.verb == "POST" else Answer(200, head.raw_path + b"?" + head.query_string)

    def refuse_body(self, head: RequestHead, num_bytes: int | None) -> Answer:
        return Answer(413, f"{num_bytes}".encode())

    async def _answer(self, body_parts: list[bytes]) -> Answer:
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            return Answer(503, b"cancelled")
        return Answer(200, b"".join(body_parts))


class Connection:
    """One connection to an EchoApp."""

    def __init__(self) -> None:
        self.transport = FakeTransport()
        self.app = EchoApp()
        self.may_answer = self.app.may_answer
        self.connections: set[HttpConnection] = set()
        loop = asyncio.get_running_loop()
        self.protocol = HttpConnection(self.app, LIMITS, DateHeader(), self.connections, loop)
        self.protocol.connection_made(self.transport)
        self._now_s = loop.time()

    async def take(self, data: bytes) -> None:
        """What the client sends arrives, and the application does what it can."""
        self.protocol.data_received(data)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def look(self, after_s: float) -> None:
        """The server looks, so long after the test began."""
        self.protocol.close_if_stalled(self._now_s + after_s)

    @property
    def statuses(self) -> list[bytes]:
        return [part.split(b" ")[0] for part in self.transport.written.split(b"HTTP/1.1 ")[1:]]

    @property
    def bodies(self) -> list[bytes]:
        """Bodies of the answers, as their lengths cut them out of what was written."""
        found = []
        rest = self.transport.written
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            found.append(rest[:length])
            rest = rest[length:]
        return found

    @property
    def is_refused(self) -> bool:
        return self.transport.has_written_eof and b"connection: close" in self.transport.written


def run(scenario: Callable[[Connection], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(Connection()), 10)

    asyncio.run(limited())


def test_headers_that_do_not_come_are_not_waited_for() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(HEAD[:-3])
        connection.look(after_s=19)
        assert connection.statuses == []
        connection.look(after_s=21)
        assert connection.statuses == [b"408"]
        assert connection.is_refused
        assert b"The request's headers did not arrive within 20 s." in connection.transport.written
        # What comes all the same is read and dropped.
        await connection.take(HEAD[-3:] + b"12345")
        connection.look(after_s=100)
        assert connection.statuses == [b"408"]

    run(scenario)


def test_a_connection_without_a_request_is_closed_without_a_word() -> None:
    async def scenario(connection: Connection) -> None:
        connection.look(after_s=19)
        assert not connection.transport.is_closed
        connection.look(after_s=21)
        assert connection.transport.is_closed
        assert connection.transport.written == b""

    run(scenario)


def test_a_body_that_does_not_go_on_is_not_waited_for() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(HEAD + b"123")
        connection.look(after_s=29)
        assert connection.statuses == []
        connection.look(after_s=31)
        await connection.settle()
        assert connection.statuses == [b"408"]
        assert connection.is_refused

    run(scenario)


def test_an_answer_that_takes_long_is_waited_for() -> None:
    async def scenario(connection: Connection) -> None:
        connection.may_answer.clear()
        # The next request has begun to come meanwhile.
        await connection.take(HEAD + b"12345" + GET[:10])
        connection.look(after_s=1000)
        connection.may_answer.set()
        await connection.settle()
        assert connection.statuses == [b"200"]
        connection.look(after_s=1019)
        assert connection.statuses == [b"200"]
        connection.look(after_s=1021)
        assert connection.statuses == [b"200", b"408"]

    run(scenario)


def test_a_client_whose_bytes_we_do_not_read_is_not_blamed() -> None:
    async def scenario(connection: Connection) -> None:
        connection.may_answer.clear()
        await connection.take(HEAD + b"12345")
        await connection.take(HEAD.replace(b"5", b"100000") + bytes(70_000))
        assert not connection.transport.is_reading_now
        connection.look(after_s=1000)
        connection.may_answer.set()
        await connection.settle()
        assert connection.transport.is_reading_now
        connection.look(after_s=1001)
        await connection.take(bytes(30_000))
        assert connection.statuses == [b"200", b"200"]

    run(scenario)


def test_a_byte_between_two_requests_counts_as_the_beginning_of_one() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(GET)
        connection.look(after_s=1000)
        assert connection.statuses == [b"200"]
        assert not connection.transport.is_closed
        await connection.take(b"\r\n")
        connection.look(after_s=1000)
        assert connection.statuses == [b"200", b"408"]

    run(scenario)


@pytest.mark.parametrize("received", [HEAD[:-3], HEAD, HEAD + b"123"])
def test_at_the_end_of_the_server_a_request_that_is_not_complete_is_refused(received: bytes) -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(received)
        connection.protocol.shut_down()
        await connection.settle()
        assert connection.statuses == [b"503"]
        assert connection.is_refused
        assert b"The server is shutting down." in connection.transport.written

    run(scenario)


def test_at_the_end_of_the_server_a_complete_request_is_answered_and_says_that_its_connection_ends() -> None:
    async def scenario(connection: Connection) -> None:
        connection.may_answer.clear()
        await connection.take(HEAD + b"12345")
        connection.protocol.shut_down()
        assert connection.statuses == []
        connection.may_answer.set()
        await connection.settle()
        assert connection.statuses == [b"200"]
        assert b"connection: close" in connection.transport.written
        assert connection.transport.is_closed

    run(scenario)


def test_at_the_end_of_the_server_a_request_behind_a_complete_one_is_refused_after_it() -> None:
    async def scenario(connection: Connection) -> None:
        connection.may_answer.clear()
        await connection.take(HEAD + b"12345" + HEAD + b"123")
        connection.protocol.shut_down()
        assert connection.statuses == []
        connection.may_answer.set()
        await connection.settle()
        assert connection.statuses == [b"200", b"503"]
        assert connection.is_refused

    run(scenario)


def test_at_the_end_of_the_server_an_idle_connection_is_closed() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(GET)
        connection.protocol.shut_down()
        assert connection.transport.is_closed
        assert connection.statuses == [b"200"]

    run(scenario)


# ---- requests in, answers out ----


def chunked(*chunks: bytes) -> bytes:
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def test_an_answer_has_the_headers_it_needs() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(HEAD + b"12345")
        head, _, body = connection.transport.written.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 200 OK"
        assert lines[1].startswith(b"date: ")
        assert lines[1].endswith(b" GMT")
        assert lines[2:] == [b"content-length: 5"]
        assert body == b"12345"
        assert not connection.transport.is_closed

    run(scenario)


def test_pipelined_requests_are_answered_in_their_order_and_not_read_too_far_ahead() -> None:
    async def scenario(connection: Connection) -> None:
        connection.may_answer.clear()
        await connection.take(GET + HEAD + b"first" + HEAD.replace(b"5", b"6") + b"second" + GET)
        assert connection.bodies == [b"/livez?"]
        assert not connection.transport.is_reading_now
        connection.may_answer.set()
        await connection.settle()
        assert connection.bodies == [b"/livez?", b"first", b"second", b"/livez?"]
        assert connection.transport.is_reading_now

    run(scenario)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5), st.data())
def test_requests_may_arrive_in_any_pieces(bodies: list[bytes], data: st.DataObject) -> None:
    sent = b"".join(
        chunked(*(body[i : i + 100] for i in range(0, len(body), 100)))
        if data.draw(st.booleans())
        else b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        for body in bodies
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=10)))

    async def scenario(connection: Connection) -> None:
        for begin, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
            connection.protocol.data_received(sent[begin:end])
        for _ in range(4 * len(bodies)):
            await asyncio.sleep(0)
        assert connection.bodies == bodies

    run(scenario)


def answers_to(pieces: list[bytes], *, is_quick: bool = True) -> tuple[bytes, bool]:
    """What a connection writes, but for the dates, and whether it is open after it."""
    found: list[tuple[bytes, bool]] = []

    async def scenario(connection: Connection) -> None:
        connection.app.is_quick = is_quick
        for piece in pieces:
            await connection.take(piece)
        is_open = not (connection.transport.is_closed or connection.is_refused)
        found.append((re.sub(rb"date: [^\r]*", b"", connection.transport.written), is_open))

    run(scenario)
    return found[0]


REQUESTS = [
    HEAD + b"12345",
    HEAD.replace(b"5", b"3") + b"abc",
    HEAD.replace(b"5", b"0"),
    HEAD.replace(b"5", b"300000"),
    HEAD.replace(b"POST", b"DELETE") + b"12345",
    HEAD[:-2] + b"Connection: close\r\n\r\n12345",
    HEAD[:-2] + b"Expect: 100-continue\r\n\r\n12345",
    HEAD[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n12345",
    HEAD.replace(b"1.1", b"1.0")[:-2] + b"Connection: keep-alive\r\n\r\n12345",
    HEAD.replace(b"\r\n", b"\n") + b"12345",
    chunked(b"12345"),
    GET,
]


@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=6), st.data())
def test_a_request_like_the_one_before_is_answered_as_if_it_were_the_first(
    requests: list[bytes], data: st.DataObject
) -> None:
    """The last one may be broken anywhere: a byte changed, taken out or put in."""
    last = requests[-1]
    at = data.draw(st.integers(0, len(last) - 1))
    change = data.draw(st.sampled_from([last[at : at + 1], b"", b"0", b"5", b"\r", b"\n", b" ", b":", b"x"]))
    pieces = [*requests, last, last[:at] + change + last[at + 1 :]]
    expected = answers_to(pieces)
    assert answers_to(pieces, is_quick=False) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_connection, "known_head", lambda data, head: None)
        assert answers_to(pieces) == expected


def test_a_quick_request_is_answered_in_its_turn_and_cancelled_with_its_connection() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(HEAD + b"first")
        connection.may_answer.clear()
        await connection.take(HEAD + b"quick")
        await connection.take(HEAD + b"later")
        assert connection.app.num_quick == 1
        assert connection.bodies == [b"first"]
        connection.may_answer.set()
        await connection.settle()
        assert connection.bodies == [b"first", b"quick", b"later"]
        connection.may_answer.clear()
        await connection.take(HEAD + b"stays")
        assert connection.app.num_quick == 2
        connection.protocol.connection_lost(None)
        await connection.settle()
        assert connection.app.num_cancelled == 1
        assert connection.bodies == [b"first", b"quick", b"later"]

    run(scenario)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([HEAD, GET, chunked(b"abc"), b"\r\n", b"GET "]), max_size=6))
def test_any_bytes_leave_a_connection_that_can_be_ended(pieces: list[bytes]) -> None:
    async def scenario(connection: Connection) -> None:
        for piece in pieces:
            await connection.take(piece)
        connection.protocol.shut_down()
        await connection.settle()
        assert connection.transport.is_closed or connection.is_refused
        connection.protocol.connection_lost(None)
        assert not connection.connections

    run(scenario)


@pytest.mark.parametrize(
    ("request_line", "path", "query"),
    [
        (b"GET /a/b?c=d#e HTTP/1.1", b"/a/b", b"c=d"),
        (b"GET http://host:80/a?b HTTP/1.1", b"/a", b"b"),
        (b"GET //a HTTP/1.1", b"//a", b""),
        (b"GET http://host HTTP/1.1", b"/", b""),
        (b"OPTIONS * HTTP/1.1", b"*", b""),
    ],
)
def test_the_target_is_a_path_and_a_query(request_line: bytes, path: bytes, query: bytes) -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(request_line + b"\r\n\r\n")
        [head] = connection.app.begun
        assert (head.raw_path, head.query_string) == (path, query)
        assert connection.statuses == [b"200"]

    run(scenario)


def test_connections_of_http_1_0_end_unless_they_are_asked_not_to() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert b"\r\nconnection: keep-alive\r\n" in connection.transport.written
        assert not connection.transport.is_closed
        await connection.take(b"GET / HTTP/1.0\r\n\r\n" + GET)
        assert connection.statuses == [b"200", b"200"]
        assert b"\r\nconnection: close\r\n" in connection.transport.written
        assert connection.transport.is_closed

    run(scenario)


def test_a_head_request_is_answered_without_its_body() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(b"HEAD /a HTTP/1.1\r\n\r\n")
        assert connection.transport.written.endswith(b"\r\ncontent-length: 3\r\n\r\n")

    run(scenario)


def test_a_client_that_asks_whether_to_send_its_body_is_told_when_its_turn_comes() -> None:
    async def scenario(connection: Connection) -> None:
        connection.may_answer.clear()
        await connection.take(HEAD + b"first" + HEAD[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert connection.transport.written == b""
        connection.may_answer.set()
        await connection.settle()
        assert connection.statuses == [b"200", b"100"]
        await connection.take(b"after")
        assert connection.statuses == [b"200", b"100", b"200"]
        assert connection.bodies[-1] == b"after"

    run(scenario)


def test_a_client_that_asks_and_is_refused_is_not_waited_for() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(HEAD.replace(b"POST", b"DELETE")[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert connection.statuses == [b"405"]
        assert connection.is_refused

    run(scenario)


def test_an_answer_that_needs_no_body_does_not_wait_for_it_and_the_connection_goes_on() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(HEAD.replace(b"POST", b"DELETE") + b"12")
        assert connection.statuses == [b"405"]
        await connection.take(b"345" + GET)
        assert connection.statuses == [b"405", b"200"]

    run(scenario)


def test_an_upgrade_that_is_offered_is_not_taken() -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"

    async def scenario(connection: Connection) -> None:
        await connection.take(HEAD[:-2] + offer + b"12345")
        await connection.take(GET[:-2] + offer + GET)
        await connection.take(HEAD[:-2] + offer + b"12")
        await connection.take(b"345" + chunked(b"abc", b"d").replace(b"\r\n\r\n", b"\r\n" + offer, 1) + GET)
        assert connection.bodies == [b"12345", b"/livez?", b"/livez?", b"12345", b"abcd", b"/livez?"]

    run(scenario)


def test_a_bare_line_feed_ends_a_line() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(HEAD.replace(b"\r\n", b"\n") + b"12345")
        assert connection.bodies == [b"12345"]

    run(scenario)


# ---- what is refused ----


@pytest.mark.parametrize(
    ("received", "status"),
    [
        (b"FOO /v1/models/m HTTP/1.1\r\n\r\n", b"501"),
        (b"get / HTTP/1.1\r\n\r\n", b"501"),
        (GET + b"FOO / HTTP/1.1\r\n\r\n", b"400"),
        (b"this is not HTTP\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"400"),
        (b"GET http:/// HTTP/1.1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
    ],
)
def test_what_breaks_the_rules_is_refused_and_ends_the_connection(received: bytes, status: bytes) -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(received)
        assert connection.statuses[-1] == status
        assert connection.is_refused
        await connection.take(GET)
        assert connection.statuses[-1] == status

    run(scenario)


def test_a_broken_request_is_refused_after_the_answers_before_it() -> None:
    async def scenario(connection: Connection) -> None:
        connection.may_answer.clear()
        await connection.take(HEAD + b"12345" + b"GET / nonsense\r\n\r\n")
        assert connection.statuses == []
        connection.may_answer.set()
        await connection.settle()
        assert connection.statuses == [b"200", b"400"]
        assert connection.is_refused

    run(scenario)


@pytest.mark.parametrize(
    "pieces",
    [
        [GET[:-2] + b"X: " + b"a" * 1200 + b"\r\n\r\n"],
        [GET[:-2] + b"X: ", *[b"a" * 400] * 4],
        [b"GET /", *[b"a" * 400] * 4],
        [GET[:-2], *[b"X: 12\r\n" * 50] * 4],
        [b"\r\n" * 300] * 3,
        [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", *[b"a" * 400] * 4],
        [chunked(b"abc")[:-2] + b"X: ", *[b"a" * 400] * 4],
    ],
)
def test_headers_without_end_are_refused(pieces: list[bytes]) -> None:
    async def scenario(connection: Connection) -> None:
        for piece in pieces:
            await connection.take(piece)
        assert connection.statuses == [b"431"]
        assert connection.is_refused

    run(scenario)


def test_many_small_parts_of_a_request_are_no_long_header() -> None:
    async def scenario(connection: Connection) -> None:
        for byte in GET * 30 + chunked(*[b"a"] * 1000):
            connection.protocol.data_received(bytes([byte]))
        await connection.settle()
        assert connection.statuses == [b"200"] * 31

    run(scenario)


def test_a_body_that_is_announced_as_too_large_is_refused_at_once_and_the_connection_goes_on() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(HEAD.replace(b"5", b"200001"))
        assert connection.bodies == [b"200001"]
        for _ in range(3):
            await connection.take(bytes(66_667))
        assert not connection.transport.is_closed
        await connection.take(GET)
        assert connection.statuses == [b"413", b"200"]

    run(scenario)


def test_a_chunked_body_that_grows_too_large_is_refused_and_ends_the_connection() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(chunked(bytes(MAX_BODY_BYTES + 1)))
        assert connection.statuses == [b"413"]
        assert connection.is_refused

    run(scenario)


# ---- clients that do not take their answers, or go away ----


def test_a_client_that_takes_its_answers_slowly_is_not_read_from() -> None:
    async def scenario(connection: Connection) -> None:
        connection.protocol.pause_writing()
        await connection.take(HEAD + b"12345")
        assert not connection.transport.is_reading_now
        assert connection.statuses == []
        connection.look(after_s=1000)
        connection.protocol.resume_writing()
        await connection.settle()
        assert connection.transport.is_reading_now
        assert connection.statuses == [b"200"]

    run(scenario)


def test_a_client_that_takes_nothing_of_its_answer_is_dropped() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(HEAD + b"12345")
        connection.transport.num_unsent_bytes = 1000
        connection.look(after_s=1)
        connection.transport.num_unsent_bytes = 900
        connection.look(after_s=60)
        connection.look(after_s=119)
        assert not connection.transport.is_aborted
        connection.look(after_s=120)
        assert connection.transport.is_aborted

    run(scenario)


def test_a_client_that_goes_away_cancels_its_request() -> None:
    async def scenario(connection: Connection) -> None:
        connection.may_answer.clear()
        await connection.take(HEAD + b"12345")
        connection.transport.close()
        connection.protocol.connection_lost(None)
        await connection.settle()
        assert connection.app.num_cancelled == 1
        assert connection.transport.written == b""
        assert not connection.connections

    run(scenario)


def test_an_idle_connection_is_closed_after_a_while() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(GET)
        connection.look(after_s=9_999)
        assert not connection.transport.is_closed
        connection.look(after_s=10_001)
        assert connection.transport.is_closed
        assert connection.statuses == [b"200"]

    run(scenario)


def test_a_large_piece_of_a_body_lets_the_others_have_their_turn() -> None:
    async def scenario() -> None:
        connection = Connection()
        piece = b"x" * 128 * 1024
        length = b"%d" % (len(piece) + 1)
        connection.protocol.data_received(HEAD.replace(b"Content-Length: 5", b"Content-Length: " + length) + piece)
        assert not connection.transport.is_reading_now
        await connection.settle()
        assert connection.transport.is_reading_now
        connection.protocol.data_received(b"x")
        assert connection.transport.is_reading_now
        await connection.settle()
        assert connection.transport.written.endswith(piece + b"x")

    asyncio.run(scenario())


def test_who_gives_way_still_waits_for_answers_before_it_reads_on() -> None:
    async def scenario() -> None:
        connection = Connection()
        connection.may_answer.clear()
        piece = b"x" * 128 * 1024
        length = b"%d" % (len(piece) + 1)
        large = HEAD.replace(b"Content-Length: 5", b"Content-Length: " + length) + piece
        await connection.take(HEAD + b"hello" + large)
        assert not connection.transport.is_reading_now
        connection.may_answer.set()
        await connection.settle()
        assert connection.transport.is_reading_now

    asyncio.run(scenario())
