"""A connection whose client stalls, and one that the server's end finds in the middle of a request."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import uvicorn
from uvicorn.server import ServerState

from tensorgate.gateway.rest.http_messages import Message, Receive, Send
from tensorgate.gateway.rest.http_protocol import ArrivalLimits, RestProtocol

LIMITS = ArrivalLimits(headers_s=20.0, body_s=30.0)
HEAD = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


class FakeTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.has_written_eof = False
        self.is_closed = False
        self.is_reading_now = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def write_eof(self) -> None:
        self.has_written_eof = True

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_reading_now = False

    def resume_reading(self) -> None:
        self.is_reading_now = True


class Connection:
    """One connection to an application that answers "ok" when the body is complete and ``may_answer`` is set."""

    def __init__(self) -> None:
        self.transport = FakeTransport()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.has_gone: list[bool] = []
        config = uvicorn.Config(
            self._answer,
            http=RestProtocol,
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            log_config=None,
            log_level=1000,
        )
        config.load()
        self.protocol = RestProtocol(config, ServerState(), {})
        self.protocol.connection_made(self.transport)
        self._now_s = asyncio.get_running_loop().time()

    async def _answer(self, _scope: Message, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.has_gone.append(True)
                return
            if not message["more_body"]:
                break
        await self.may_answer.wait()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async def take(self, data: bytes) -> None:
        """What the client sends arrives, and the application does what it can."""
        self.protocol.data_received(data)
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def look(self, after_s: float) -> None:
        """The server looks, so long after the test began."""
        self.protocol.close_if_stalled(self._now_s + after_s, LIMITS)

    @property
    def statuses(self) -> list[bytes]:
        return [part.split(b" ")[0] for part in self.transport.written.split(b"HTTP/1.1 ")[1:]]

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


def test_a_body_that_does_not_go_on_is_not_waited_for_and_its_request_ends() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(HEAD + b"123")
        connection.look(after_s=29)
        assert connection.statuses == []
        connection.look(after_s=31)
        await connection.settle()
        assert connection.statuses == [b"408"]
        assert connection.is_refused
        assert connection.has_gone == [True]

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
        connection.protocol.shutdown()
        await connection.settle()
        assert connection.statuses == [b"503"]
        assert connection.is_refused
        assert b"The server is shutting down." in connection.transport.written
        assert connection.has_gone == ([True] if len(received) >= len(HEAD) else [])

    run(scenario)


def test_at_the_end_of_the_server_a_complete_request_is_answered_and_says_that_its_connection_ends() -> None:
    async def scenario(connection: Connection) -> None:
        connection.may_answer.clear()
        await connection.take(HEAD + b"12345")
        connection.protocol.shutdown()
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
        await connection.take(GET + HEAD + b"123")
        connection.protocol.shutdown()
        assert connection.statuses == []
        connection.may_answer.set()
        await connection.settle()
        assert connection.statuses == [b"200", b"503"]
        assert connection.is_refused

    run(scenario)


def test_at_the_end_of_the_server_an_idle_connection_is_closed() -> None:
    async def scenario(connection: Connection) -> None:
        await connection.take(GET)
        connection.protocol.shutdown()
        assert connection.transport.is_closed
        assert connection.statuses == [b"200"]

    run(scenario)
