"""The native gRPC edge against RFC 9113: what breaks the protocol gets the error that the RFC asks for.

In the manner of h2spec. Each case is one connection that sends what it should not; meanwhile another client's request,
half sent before and ended afterwards, is answered as if nothing were. Where the RFC leaves a choice the case names all
of it: a stream's error may always be taken for the connection's (5.4).
"""

import contextlib
import os
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import hpack
import pytest

from tensorgate._native import nghttp2_api
from tensorgate._native.shared_library import LibraryError
from tests.fakes.fake_worker import HOLD_MARK
from tests.harness.http2_frames import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HAS_PRIORITY,
    HEADER_TABLE_SIZE,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    INTERNAL_ERROR,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Fields,
    FrameClient,
    block,
    data,
    frame,
    headers,
    literal,
    reset,
    settings,
    window_update,
)
from tests.harness.native_grpc import HANDLED, RawClient, Scene, framed, predict_request, scene, until

MAX_STREAMS = 20
OUR_MAX_FRAME_SIZE = 1 << 20
RESET_BURST, RESETS_PER_S = 2_000, 500  # of streams: http2_offences.pxd
MESSAGE = framed(predict_request())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    try:
        nghttp2_api.load_library()
    except LibraryError as error:
        pytest.skip(f"the native gRPC edge cannot run here: {error}")
    with scene(
        tmp_path_factory.mktemp("edge"),
        max_concurrent_streams=MAX_STREAMS,
        stream_window=65535,
        connection_window=65535,
    ) as made:
        yield made


@pytest.fixture(autouse=True)
def _bystander(served: Scene) -> Iterator[None]:
    """Another connection, in the middle of a request while the test runs."""
    with RawClient(served.port) as client:
        stream_id = client.start()
        client.send(stream_id, MESSAGE[:10])
        yield
        assert client.ask(predict_request()).status == (0, "")
        client.send(stream_id, MESSAGE[10:], end=True)
        assert client.finish(stream_id).status == (0, "")
        assert not client.goaways
    served.echoes = True
    until(lambda: served.edge.num_connections == 0)
    until(served.is_at_rest)


def with_field(name: str, value: str) -> Fields:
    return [*REQUEST, (name, value)]


def without(name: str) -> Fields:
    return [each for each in REQUEST if each[0] != name]


def changed(name: str, value: str) -> Fields:
    return [(key, value if key == name else old) for key, old in REQUEST]


# --- answers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Frames on a greeted connection; ``error`` is what stream 1, or the connection, is to end with."""

    name: str  # with the section that asks for it
    sent: bytes
    error: int


def ids(cases: list[Case]) -> list[str]:
    return [each.name for each in cases]


OPEN = headers(1)
HALF_CLOSED = headers(1) + data(1, framed(predict_request(HOLD_MARK)), end=True)
RESET = headers(1) + reset(1)


CONNECTION_ERRORS = [
    # 4: frames
    Case("4.2 a HEADERS frame above the maximum", frame(HEADERS, END_HEADERS, 1, bytes(OUR_MAX_FRAME_SIZE + 1)), 6),
    Case("4.3 a block that is no HPACK", frame(HEADERS, END_HEADERS, 1, b"\xff" * 40), COMPRESSION_ERROR),
    Case("4.3 a block interrupted by another frame", frame(HEADERS, 0, 1, block(REQUEST)) + data(1, b"x"), 1),
    Case("4.3 a block interrupted on another stream", frame(HEADERS, 0, 1, block(REQUEST)) + headers(3), 1),
    Case("5.5 a block interrupted by an unknown frame", frame(HEADERS, 0, 1, block(REQUEST)) + frame(0x16), 1),
    # 5.1: states
    Case("5.1 DATA on an idle stream", data(1, b"x"), PROTOCOL_ERROR),
    Case("5.1 RST_STREAM on an idle stream", reset(1), PROTOCOL_ERROR),
    Case("5.1 WINDOW_UPDATE on an idle stream", window_update(1, 1), PROTOCOL_ERROR),
    Case("5.1 CONTINUATION on an idle stream", frame(CONTINUATION, END_HEADERS, 1, block(REQUEST)), PROTOCOL_ERROR),
    Case("5.1.1 an even stream identifier", headers(2), PROTOCOL_ERROR),
    Case("5.1.1 a stream identifier below the last", headers(5) + headers(3), PROTOCOL_ERROR),
    # 6: each kind of frame
    Case("6.1 DATA on stream 0", data(0, b"x"), PROTOCOL_ERROR),
    Case("6.1 DATA with padding as long as the frame", OPEN + frame(DATA, PADDED, 1, b"\x06abcde"), PROTOCOL_ERROR),
    Case("6.1 DATA with padding and no length of it", OPEN + frame(DATA, PADDED, 1, b""), PROTOCOL_ERROR),
    Case("6.2 HEADERS on stream 0", headers(0), PROTOCOL_ERROR),
    Case("6.2 HEADERS with padding as long as the frame", frame(HEADERS, PADDED | END_HEADERS, 1, b"\x06abcde"), 1),
    Case("6.2 HEADERS too short for their priority", frame(HEADERS, HAS_PRIORITY | END_HEADERS, 1, b"abc"), 6),
    Case("6.3 PRIORITY on stream 0", frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
    Case("6.4 RST_STREAM on stream 0", reset(0), PROTOCOL_ERROR),
    Case("6.4 RST_STREAM of another size", OPEN + frame(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    Case("6.5 an acknowledgement of SETTINGS with a payload", frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE_ERROR),
    Case("6.5 SETTINGS on a stream", frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    Case("6.5 SETTINGS of a size that is no multiple of 6", frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    Case("6.5.2 ENABLE_PUSH neither 0 nor 1", settings((ENABLE_PUSH, 2)), PROTOCOL_ERROR),
    Case("6.5.2 INITIAL_WINDOW_SIZE of 2^31", settings((INITIAL_WINDOW_SIZE, 1 << 31)), FLOW_CONTROL_ERROR),
    Case("6.5.2 MAX_FRAME_SIZE below 2^14", settings((MAX_FRAME_SIZE, (1 << 14) - 1)), PROTOCOL_ERROR),
    Case("6.5.2 MAX_FRAME_SIZE above 2^24 - 1", settings((MAX_FRAME_SIZE, 1 << 24)), PROTOCOL_ERROR),
    Case("6.6 PUSH_PROMISE of a client", OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2)), 1),
    Case("6.7 PING on a stream", frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    Case("6.7 PING of another size", frame(PING, 0, 0, bytes(6)), FRAME_SIZE_ERROR),
    Case("6.8 GOAWAY on a stream", frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    Case("6.8 GOAWAY too short", frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    Case("6.9 WINDOW_UPDATE by 0 of the connection", window_update(0, 0), PROTOCOL_ERROR),
    Case("6.9 WINDOW_UPDATE of another size", frame(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    Case("6.9.1 the connection's window above 2^31 - 1", window_update(0, 0x7FFFFFFF) * 2, FLOW_CONTROL_ERROR),
    Case(
        "6.9.2 a stream's window above 2^31 - 1 by SETTINGS",
        OPEN + window_update(1, 0x7FFFFFFF - 65535) + settings((INITIAL_WINDOW_SIZE, 65536)),
        FLOW_CONTROL_ERROR,
    ),
    Case("6.10 CONTINUATION after the block's end", OPEN + frame(CONTINUATION, END_HEADERS, 1, b""), PROTOCOL_ERROR),
    Case("6.10 CONTINUATION on stream 0", frame(HEADERS, 0, 1) + frame(CONTINUATION, END_HEADERS, 0), PROTOCOL_ERROR),
    Case("6.10 CONTINUATION of another stream", frame(HEADERS, 0, 1) + frame(CONTINUATION, END_HEADERS, 3), 1),
    Case("6.10 CONTINUATION after DATA", OPEN + data(1, b"x") + frame(CONTINUATION, END_HEADERS, 1), PROTOCOL_ERROR),
    # RFC 7541
    Case("HPACK 6.1 index 0", frame(HEADERS, END_HEADERS, 1, b"\x80"), COMPRESSION_ERROR),
    Case("HPACK 2.3.3 an index behind the table's end", frame(HEADERS, END_HEADERS, 1, b"\xbe"), COMPRESSION_ERROR),
    Case("HPACK 5.1 an integer without end", frame(HEADERS, END_HEADERS, 1, b"\xff" + b"\x80" * 20), COMPRESSION_ERROR),
    Case("HPACK 5.2 a string longer than its block", frame(HEADERS, END_HEADERS, 1, b"\x00\x7fabc"), COMPRESSION_ERROR),
    Case(
        "HPACK 5.2 Huffman padding longer than 7 bits",
        frame(HEADERS, END_HEADERS, 1, block(REQUEST) + b"\x00\x01x\x82\x1f\xff"),
        COMPRESSION_ERROR,
    ),
    Case(
        "HPACK 5.2 Huffman padding of zeros",
        frame(HEADERS, END_HEADERS, 1, block(REQUEST) + b"\x00\x01x\x81\x18"),
        COMPRESSION_ERROR,
    ),
    Case(
        "HPACK 5.2 Huffman's end-of-string symbol",
        frame(HEADERS, END_HEADERS, 1, block(REQUEST) + b"\x00\x01x\x84\xff\xff\xff\xff"),
        COMPRESSION_ERROR,
    ),
    Case(
        "HPACK 6.3 a table above what is allowed", frame(HEADERS, END_HEADERS, 1, b"\x3f\xe2\x1f" + block(REQUEST)), 9
    ),
    Case("HPACK 4.2 a table's size behind a field", frame(HEADERS, END_HEADERS, 1, block(REQUEST) + b"\x20"), 9),
]


@pytest.mark.parametrize("case", CONNECTION_ERRORS, ids=ids(CONNECTION_ERRORS))
def test_an_error_of_the_connection_is_told_and_closes_it(served: Scene, case: Case) -> None:
    with FrameClient(served.port) as client:
        client.send(case.sent)
        outcome = client.outcome()
        assert outcome.connection_error == case.error
        assert outcome.is_closed


EITHER_ERRORS = [
    Case("4.2 a DATA frame above the maximum", OPEN + data(1, bytes(OUR_MAX_FRAME_SIZE + 1)), FRAME_SIZE_ERROR),
    Case("5.1 DATA on a half-closed stream", HALF_CLOSED + data(1, b"x"), STREAM_CLOSED),
    Case("5.1 HEADERS on a half-closed stream", HALF_CLOSED + headers(1, end=True), STREAM_CLOSED),
    Case("6.3 PRIORITY of another size", OPEN + frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
    Case("6.9 WINDOW_UPDATE by 0 of a stream", OPEN + window_update(1, 0), PROTOCOL_ERROR),
    Case("6.9.1 a stream's window above 2^31 - 1", OPEN + window_update(1, 0x7FFFFFFF) * 2, FLOW_CONTROL_ERROR),
    # 8.1: the message as a whole
    Case("8.1 headers that end neither stream nor request", OPEN + headers(1, [("x-a", "b")]), PROTOCOL_ERROR),
    Case("8.1 trailers with a pseudo-header", OPEN + headers(1, [(":path", "/")], end=True), PROTOCOL_ERROR),
    Case("8.1.1 less than content-length", headers(1, with_field("content-length", "9")) + data(1, b"x", end=True), 1),
    Case("8.1.1 more than content-length", headers(1, with_field("content-length", "1")) + data(1, b"xyz"), 1),
    Case(
        "8.1.1 more than content-length in all",
        headers(1, with_field("content-length", "3")) + data(1, b"xy") + data(1, b"xy", end=True),
        PROTOCOL_ERROR,
    ),
    Case("8.1.1 content-length and no DATA", headers(1, with_field("content-length", "5"), end=True), PROTOCOL_ERROR),
    Case("8.1.1 a content-length that is no number", headers(1, with_field("content-length", "5x")), PROTOCOL_ERROR),
    Case("8.1.1 two values of content-length", headers(1, [*REQUEST, *[("content-length", "5")] * 2]), PROTOCOL_ERROR),
    # 8.2: fields
    Case("8.2.1 a name in upper case", headers(1, with_field("X-Test", "a")), PROTOCOL_ERROR),
    Case("8.2.1 a name with a space", headers(1, with_field("x test", "a")), PROTOCOL_ERROR),
    Case("8.2.1 a name with a control character", headers(1, with_field("x\x01", "a")), PROTOCOL_ERROR),
    Case("8.2.1 a name beyond ASCII", headers(1, with_field("x\xfc", "a")), PROTOCOL_ERROR),
    Case("8.2.1 a name with a colon", headers(1, with_field("x:y", "a")), PROTOCOL_ERROR),
    Case("8.2.1 an empty name", headers(1, with_field("", "a")), PROTOCOL_ERROR),
    Case("8.2.1 a value with NUL", headers(1, with_field("x-test", "a\0b")), PROTOCOL_ERROR),
    Case("8.2.1 a value with LF", headers(1, with_field("x-test", "a\nb")), PROTOCOL_ERROR),
    Case("8.2.1 a value with CR", headers(1, with_field("x-test", "a\rb")), PROTOCOL_ERROR),
    Case("8.2.1 a value that begins with a space", headers(1, with_field("x-test", " a")), PROTOCOL_ERROR),
    Case("8.2.1 a value that ends with a tab", headers(1, with_field("x-test", "a\t")), PROTOCOL_ERROR),
    *[
        Case(f"8.2.2 {name}", headers(1, with_field(name, value)), PROTOCOL_ERROR)
        for name, value in (
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
        )
    ],
    Case("8.2.2 te other than trailers", headers(1, changed("te", "gzip")), PROTOCOL_ERROR),
    # 8.3: pseudo-headers
    Case("8.3 an unknown pseudo-header", headers(1, [(":test", "a"), *REQUEST]), PROTOCOL_ERROR),
    Case("8.3 a pseudo-header of responses", headers(1, [(":status", "200"), *REQUEST]), PROTOCOL_ERROR),
    Case("8.3 a pseudo-header behind a field", headers(1, [*without(":path"), (":path", "/a")]), PROTOCOL_ERROR),
    *[Case(f"8.3.1 no {name}", headers(1, without(name)), PROTOCOL_ERROR) for name in (":method", ":scheme", ":path")],
    *[
        Case(f"8.3 {name} twice", headers(1, [REQUEST[place], *REQUEST]), PROTOCOL_ERROR)
        for place, name in enumerate((":method", ":scheme", ":path", ":authority"))
    ],
    Case("8.3.1 an empty :path", headers(1, changed(":path", "")), PROTOCOL_ERROR),
    Case("8.5 CONNECT with a :path", headers(1, changed(":method", "CONNECT")), PROTOCOL_ERROR),
]


@pytest.mark.parametrize("case", EITHER_ERRORS, ids=ids(EITHER_ERRORS))
def test_an_error_of_a_stream_is_told_and_the_rest_lives(served: Scene, case: Case) -> None:
    with FrameClient(served.port) as client:
        client.send(case.sent)
        outcome = client.outcome()
        if outcome.connection_error is not None:
            assert outcome.connection_error == case.error
            assert outcome.is_closed
            return
        assert outcome.resets.get(1) == case.error
        client.send(headers(7), data(7, MESSAGE, end=True))
        assert client.answer(7)["grpc-status"] == "0"


TOLERATED = [
    Case("4.1 a frame of unknown type", frame(0x16, 0xFF, 0, b"whatever"), 0),
    Case("4.1 one on a stream", frame(0x16, 0xFF, 9, b"whatever"), 0),
    Case("4.1 flags that mean nothing", frame(PING, 0xFE, 0, b"unasked!"), 0),
    Case("4.1 the reserved bit", frame(PRIORITY, 0, (1 << 31) | 9, bytes(4) + b"\x10"), 0),
    Case("5.3 PRIORITY on an idle stream", frame(PRIORITY, 0, 9, bytes(4) + b"\x10"), 0),
    Case("6.3 PRIORITY on a closed stream", RESET + frame(PRIORITY, 0, 1, bytes(4) + b"\x10"), 0),
    Case("5.1 WINDOW_UPDATE on a closed stream", RESET + window_update(1, 10), 0),
    Case("5.1 RST_STREAM on a closed stream", RESET + reset(1), 0),
    Case("6.4 RST_STREAM with a code of nobody's", headers(1) + reset(1, 0xABCDEF), 0),
    Case("6.5.2 a setting that nobody knows", settings((0xABC, 12345)), 0),
    Case("6.5 empty SETTINGS", settings(), 0),
    Case("6.7 the answer to a PING that was never sent", frame(PING, ACK, 0, b"unasked!"), 0),
    Case("6.1 DATA without bytes", headers(1) + data(1, b"") * 3 + reset(1), 0),
    Case("8.1 trailers of a client", headers(1) + data(1, MESSAGE) + headers(1, [("x-a", "b")], end=True), 0),
]


@pytest.mark.parametrize("case", TOLERATED, ids=ids(TOLERATED))
def test_what_is_allowed_changes_nothing(served: Scene, case: Case) -> None:
    with FrameClient(served.port) as client:
        client.send(case.sent)
        outcome = client.outcome()
        assert outcome.connection_error is None
        assert not outcome.resets
        client.send(headers(7), data(7, MESSAGE, end=True))
        assert client.answer(7)["grpc-status"] == "0"


# --- 3.4: the preface -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        PREFACE[:-1] + b"X",
        PREFACE.lower(),
        PREFACE + frame(PING, 0, 0, bytes(8)),
        PREFACE + headers(1),
        PREFACE + frame(SETTINGS, ACK),
        os.urandom(500),
    ],
    ids=["HTTP/1.1", "last byte", "lower case", "PING first", "HEADERS first", "ACK first", "noise"],
)
def test_a_connection_that_does_not_begin_as_it_must_is_closed(served: Scene, sent: bytes) -> None:
    with FrameClient(served.port, greets=False) as client:
        client.send(sent)
        assert client.read_until(lambda each: each.kind == SETTINGS)
        while client.read() is not None:
            pass
        # A GOAWAY may be left out (3.4), since the peer may not speak HTTP/2 at all.
        assert all(
            each.payload[4:8] == struct.pack(">I", PROTOCOL_ERROR) for each in client.frames if each.kind == GOAWAY
        )


def test_frames_may_come_with_the_preface_before_the_servers_settings(served: Scene) -> None:
    with FrameClient(served.port, greets=False) as client:
        client.send(PREFACE, settings(), headers(1), data(1, MESSAGE, end=True))
        assert client.answer(1)["grpc-status"] == "0"
        assert client.frames[0].kind == SETTINGS


# --- 4, 6.2, 6.10: frames and blocks of headers -----------------------------------------------------------------------


def test_frames_of_the_largest_size_are_taken(tmp_path_factory: pytest.TempPathFactory) -> None:
    message = framed(predict_request(os.urandom(OUR_MAX_FRAME_SIZE * 2)))
    with scene(tmp_path_factory.mktemp("edge"), stream_window=1 << 22) as large, FrameClient(large.port) as client:
        client.send(window_update(0, 1 << 24), window_update(0, 1), settings((INITIAL_WINDOW_SIZE, 1 << 24)))
        client.send(headers(1))
        first, second = message[:OUR_MAX_FRAME_SIZE], message[OUR_MAX_FRAME_SIZE:][:OUR_MAX_FRAME_SIZE]
        client.send(data(1, first), data(1, second))
        client.send(data(1, message[2 * OUR_MAX_FRAME_SIZE :], end=True))
        assert client.answer(1)["grpc-status"] == "0"
        assert client.body(1) == message


def test_a_block_may_come_in_pieces_with_padding_and_priority(served: Scene) -> None:
    encoded = block(REQUEST)
    with FrameClient(served.port) as client:
        first = bytes([4]) + struct.pack(">IB", 0, 15) + encoded[:9] + bytes(4)
        client.send(frame(HEADERS, PADDED | HAS_PRIORITY, 1, first))
        client.send(*[frame(CONTINUATION, 0, 1, encoded[at : at + 30]) for at in range(9, 99, 30)])
        client.send(frame(CONTINUATION, END_HEADERS, 1, encoded[99:]))
        client.send(frame(DATA, PADDED, 1, bytes([200]) + MESSAGE + bytes(200)))
        client.send(frame(DATA, PADDED | END_STREAM, 1, bytes([255]) + bytes(255)))
        assert client.answer(1)["grpc-status"] == "0"
        assert client.body(1) == MESSAGE


def test_a_flood_of_continuations_ends_the_connection(served: Scene) -> None:
    """CVE-2024-27316: a block that never ends costs a bounded number of frames, whatever they hold."""
    for piece in (b"", literal(b"x-a", b"b" * 100)):
        with FrameClient(served.port) as client:
            client.send(frame(HEADERS, 0, 1, block(REQUEST)))
            for _ in range(2000):
                client.send(frame(CONTINUATION, 0, 1, piece) * 50)
                if b"".join(each.payload for each in client.frames if each.kind == GOAWAY):
                    break
                if client.is_closed or _has_input(client):
                    break
            outcome = client.outcome()
            assert outcome.is_closed
            assert outcome.connection_error in (None, PROTOCOL_ERROR, INTERNAL_ERROR, ENHANCE_YOUR_CALM)


def _has_input(client: FrameClient) -> bool:
    """Whether the server has said something that has not been read yet."""
    client.socket.setblocking(False)
    try:
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            client.socket.recv(1, 2)  # MSG_PEEK
            return True
        return False
    finally:
        client.socket.settimeout(20)


def test_a_small_block_that_unfolds_into_megabytes_is_refused(served: Scene) -> None:
    """Each byte behind the first field repeats it from the table: 40 KB stand for 40 MB of header fields."""
    first = b"\x40\x01x\x7f" + b"\xe9\x06" + b"v" * 1000  # a literal that is entered in the table; 127 + 873 bytes
    with FrameClient(served.port) as client:
        client.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, block(REQUEST) + first + b"\xbe" * 40_000))
        assert client.answer(1)["grpc-status"] == "8"
        client.send(headers(3), data(3, MESSAGE, end=True))
        assert client.answer(3)["grpc-status"] == "0"


# --- 5.1: streams -----------------------------------------------------------------------------------------------------


def test_streams_above_the_limit_are_refused(served: Scene) -> None:
    with FrameClient(served.port) as client:
        client.send(*[headers(1 + 2 * number) for number in range(MAX_STREAMS)])
        assert not client.outcome().resets
        above = 1 + 2 * MAX_STREAMS
        client.send(headers(above))
        outcome = client.outcome()
        if outcome.connection_error is None:
            assert outcome.resets[above] in (PROTOCOL_ERROR, REFUSED_STREAM)
        else:
            assert outcome.connection_error in (PROTOCOL_ERROR, ENHANCE_YOUR_CALM)


def test_an_identifier_left_out_cannot_be_used_later_but_one_that_was_closed_is_passed_over(served: Scene) -> None:
    with FrameClient(served.port) as client:
        client.send(headers(1), reset(1), headers(3), reset(3))
        # Trailers that were on their way when the stream was closed.
        client.send(headers(1, [("x-a", "b")], end=True))
        assert client.outcome().connection_error is None
        client.send(headers(9), reset(9), headers(5))
        assert client.outcome().connection_error == PROTOCOL_ERROR


@pytest.mark.parametrize("ends_by", ["the client's reset", "the server's answer"])
def test_data_on_a_closed_stream_is_dropped_and_its_window_given_back(served: Scene, ends_by: str) -> None:
    """5.1 lets a server treat it as an error where the client closed the stream, and not where the server did."""
    with FrameClient(served.port) as client:
        if ends_by == "the client's reset":
            client.send(headers(1), reset(1))
        else:
            client.send(headers(1, changed(":path", "/no.Service/Method")))
            client.read_until(lambda each: each.kind == RST_STREAM)
            assert client.frames[-1].payload == struct.pack(">I", NO_ERROR)
        for _ in range(40):  # ten times the connection's window
            client.send(data(1, bytes(16384)))
            client.ping()
        client.send(data(1, b"", end=True))
        assert client.outcome().connection_error is None
        assert sum(each.kind == RST_STREAM for each in client.frames) <= 1
        client.send(headers(3), data(3, MESSAGE, end=True))
        assert client.answer(3)["grpc-status"] == "0"


# --- 6.4: resets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ending",
    [
        reset,
        lambda stream_id: window_update(stream_id, 0),
        lambda stream_id: window_update(stream_id, 0x7FFFFFFF) * 2,
        lambda stream_id: headers(stream_id, [(":path", "/")], end=True),
        lambda stream_id: frame(PRIORITY, 0, stream_id, struct.pack(">IB", stream_id, 1)),
    ],
    ids=["by the client", "an increment of 0", "a window too large", "bad trailers", "a stream that hangs on itself"],
)
def test_streams_that_are_reset_one_after_the_other_end_the_connection(
    served: Scene, ending: Callable[[int], bytes]
) -> None:
    """CVE-2023-44487, and CVE-2025-8671: it comes to the same whether the client resets or makes the server do it."""
    began_s = time.monotonic()
    with FrameClient(served.port) as client:
        for first in range(1, 40_000, 40):
            streams = range(first, first + 40, 2)
            client.send(*[headers(each) + data(each, MESSAGE) + ending(each) for each in streams])
            outcome = client.outcome()
            if outcome.is_closed:
                break
        if not outcome.is_closed and time.monotonic() - began_s > (20_000 - RESET_BURST) / RESETS_PER_S:
            pytest.skip(f"20,000 resets took so long here that they were not more than {RESETS_PER_S} a second")
        assert outcome.is_closed
        assert outcome.connection_error in (ENHANCE_YOUR_CALM, PROTOCOL_ERROR, FLOW_CONTROL_ERROR)
        assert outcome.connection_error == ENHANCE_YOUR_CALM or first == 1


# --- 6.5, 6.9: settings and windows -----------------------------------------------------------------------------------


def test_settings_are_acknowledged_each(served: Scene) -> None:
    with FrameClient(served.port) as client:
        client.frames.clear()
        client.send(settings((MAX_CONCURRENT_STREAMS, 5)), settings(), settings((ENABLE_PUSH, 0), (0xABC, 1)))
        client.outcome()
        acknowledged = [each for each in client.frames if each.kind == SETTINGS]
        assert [(each.flags, each.payload) for each in acknowledged] == [(ACK, b"")] * 3


def _echoed(client: FrameClient, size: int) -> bytes:
    """Asks for the echo of a request of so many bytes on stream 1; its message, framed."""
    message = framed(predict_request(os.urandom(size)))
    client.send(headers(1))
    client.send(*[data(1, message[at : at + 16384]) for at in range(0, len(message), 16384)], data(1, b"", end=True))
    return message


def test_data_keeps_to_windows_of_any_size(served: Scene) -> None:
    with FrameClient(served.port, first_settings=settings((INITIAL_WINDOW_SIZE, 0))) as client:
        message = _echoed(client, 40)
        client.read_until(lambda each: each.kind == HEADERS)
        client.ping()
        assert client.body(1) == b""
        for size in range(1, 5):
            client.send(window_update(1, 1))
            client.read_until(lambda each: each.kind == DATA)
            client.ping()
            assert client.body(1) == message[:size]
        client.send(settings((INITIAL_WINDOW_SIZE, 6)))
        client.read_until(lambda each: each.kind == DATA)
        client.ping()
        assert client.body(1) == message[:10]
        # Now the window is below zero: what has gone may be more than what SETTINGS leave.
        client.send(settings((INITIAL_WINDOW_SIZE, 0)), window_update(1, 6))
        client.ping()
        assert client.body(1) == message[:10]
        client.send(window_update(1, 1))
        client.read_until(lambda each: each.kind == DATA)
        assert client.body(1) == message[:11]
        client.send(window_update(1, 1000))
        assert client.answer(1)["grpc-status"] == "0"
        assert client.body(1) == message


def test_data_keeps_to_the_connections_window_and_to_the_clients_frame_size(served: Scene) -> None:
    given = settings((INITIAL_WINDOW_SIZE, 1 << 20), (MAX_FRAME_SIZE, 20_000))
    with FrameClient(served.port, first_settings=given) as client:
        message = _echoed(client, 50_000) + b""
        assert client.answer(1)["grpc-status"] == "0"
        assert client.body(1) == message
        second = framed(predict_request(os.urandom(50_000)))
        client.send(headers(3))
        client.send(*[data(3, second[at : at + 16384]) for at in range(0, len(second), 16384)], data(3, b"", end=True))
        left = 65535 - len(message)
        while len(client.body(3)) < left:
            client.read()
        client.ping()
        assert client.body(3) == second[:left]
        client.send(window_update(0, 1 << 20))
        assert client.answer(3)["grpc-status"] == "0"
        assert client.body(3) == second
        assert all(len(each.payload) <= 20_000 for each in client.frames)


def test_more_than_a_streams_window_is_an_error_of_flow_control(served: Scene) -> None:
    served.echoes = False  # nobody takes the messages, so that the window is not given back
    message = framed(bytes(16_000))
    with FrameClient(served.port) as client:
        client.send(headers(1, changed(":path", HANDLED)))
        for _ in range(40):
            client.send(data(1, message) * 4)
            outcome = client.outcome()
            if outcome.resets or outcome.is_closed:
                break
        assert outcome.connection_error in (None, FLOW_CONTROL_ERROR)
        assert outcome.resets.get(1, FLOW_CONTROL_ERROR) == FLOW_CONTROL_ERROR
        assert outcome.resets or outcome.is_closed


@pytest.mark.parametrize("given", [(HEADER_TABLE_SIZE, 0), (HEADER_TABLE_SIZE, 1 << 20), (HEADER_TABLE_SIZE, 100)])
def test_answers_keep_to_the_clients_header_table(served: Scene, given: tuple[int, int]) -> None:
    with FrameClient(served.port, first_settings=settings(given)) as client:
        client.table_size = given[1]
        for stream_id in (1, 3, 5):
            client.send(headers(stream_id), data(stream_id, MESSAGE, end=True))
            fields = client.answer(stream_id)
            assert (fields[":status"], fields["grpc-status"]) == ("200", "0")


# --- 6.7, 6.8: PING and GOAWAY ----------------------------------------------------------------------------------------


def test_a_ping_is_answered_with_its_own_bytes_and_an_answer_is_not(served: Scene) -> None:
    with FrameClient(served.port) as client:
        client.frames.clear()
        client.send(*[frame(PING, 0, 0, bytes([number]) * 8) for number in range(5)], frame(PING, ACK, 0, b"x" * 8))
        client.outcome()
        answers = [(each.flags, each.payload) for each in client.frames if each.kind == PING]
        assert answers == [(ACK, bytes([number]) * 8) for number in range(5)] + [(ACK, b"outcome?"), (ACK, b"outcome!")]


def test_after_the_clients_goaway_what_runs_is_answered_and_the_connection_closes(served: Scene) -> None:
    with FrameClient(served.port) as client:
        client.send(headers(1), data(1, MESSAGE[:5]), frame(GOAWAY, 0, 0, bytes(4) + struct.pack(">I", 0xABC) + b"bye"))
        client.ping()
        client.send(data(1, MESSAGE[5:], end=True))
        assert client.answer(1)["grpc-status"] == "0"
        while client.read() is not None:
            pass


# --- floods -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "flood"),
    [
        ("PING", frame(PING, 0, 0, bytes(8))),
        ("SETTINGS", settings((MAX_CONCURRENT_STREAMS, 1))),
    ],
)
def test_frames_that_ask_for_answers_nobody_takes_end_the_connection(served: Scene, kind: str, flood: bytes) -> None:
    """CVE-2019-9512, CVE-2019-9515: the answers of one who does not read must not pile up."""
    assert kind
    before = resident_bytes()
    closed = served.edge.counters["closed"]
    with FrameClient(served.port) as client:
        client.socket.settimeout(5)
        with contextlib.suppress(TimeoutError):
            for _ in range(2000):
                client.send(flood * 1000)
        # The kernel's buffers hold some of it; beyond them the server stops reading, or closes.
        assert resident_bytes() - before < 64 << 20
    until(lambda: served.edge.counters["closed"] > closed)


def test_streams_refused_to_one_who_does_not_read_do_not_pile_up(served: Scene) -> None:
    """One that never acknowledges SETTINGS may open streams without end, and gets a reset for each."""
    before = resident_bytes()
    encoded = hpack.Encoder()
    encoded.encode(REQUEST)
    with FrameClient(served.port, greets=False) as client:
        client.socket.settimeout(3)
        client.send(PREFACE, settings(), frame(HEADERS, END_HEADERS, 1, hpack.Encoder().encode(REQUEST)))
        block_of_indexes = encoded.encode(REQUEST)
        with contextlib.suppress(TimeoutError):
            for first in range(3, 3_000_000, 2000):
                streams = range(first, first + 2000, 2)
                client.send(*[frame(HEADERS, END_HEADERS, each, block_of_indexes) for each in streams])
        assert resident_bytes() - before < 64 << 20


@pytest.mark.parametrize(
    ("kind", "flood"),
    [
        ("empty DATA", data(1, b"")),
        ("PRIORITY", b"".join(frame(PRIORITY, 0, 2 * n + 101, struct.pack(">IB", 0, 9)) for n in range(100))),
        ("WINDOW_UPDATE", window_update(1, 1)),
        ("unknown", frame(0xEE, 0, 0, bytes(20))),
    ],
)
def test_frames_that_do_nothing_hold_nobody_up(served: Scene, kind: str, flood: bytes) -> None:
    assert kind
    before = resident_bytes()
    with FrameClient(served.port) as client, RawClient(served.port) as other:
        client.send(headers(1))
        for _ in range(20):
            client.send(flood * 1000)
            assert other.ask(predict_request()).status == (0, "")
        assert client.outcome().connection_error in (None, ENHANCE_YOUR_CALM)
        assert resident_bytes() - before < 64 << 20


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- 8: requests that are allowed -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([*without(":authority"), ("host", "test")], "200"),
        (without("te"), "200"),
        (with_field("x-empty", ""), "200"),
        (with_field("x-spaced", "a b\tc"), "200"),
        (with_field("cookie", "a=b"), "200"),
        ([(":method", "CONNECT"), (":authority", "test")], "405"),
        (changed(":method", "PUT"), "405"),
        (changed("content-type", "text/plain"), "415"),
        (without("content-type"), "415"),
    ],
)
def test_a_request_that_is_well_formed_is_answered(served: Scene, fields: Fields, status: str) -> None:
    with FrameClient(served.port) as client:
        client.send(headers(1, fields), data(1, MESSAGE, end=True))
        assert client.answer(1)[":status"] == status
