"""The native gRPC edge, frame by frame: what a client can do to it, well-meant or not."""

import contextlib
import gzip
import os
import pathlib
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import pytest

from tensorgate._native import nghttp2_api
from tensorgate._native.handled_call import EVENT_CLOSED, EVENT_DRAINED, EVENT_END, EVENT_MESSAGE, EVENT_START
from tensorgate._native.shared_library import LibraryError
from tensorgate.protos.status_codes import Code
from tests.fakes.fake_worker import HOLD_MARK
from tests.harness.native_grpc import (
    HANDLED,
    MULTI_INFERENCE,
    PREDICT,
    RawClient,
    Scene,
    Stream,
    framed,
    predict_request,
    scene,
    until,
)

# HTTP/2's error codes.
NO_ERROR = 0
CANCEL = 8
ENHANCE_YOUR_CALM = 11


def hold_request() -> bytes:
    """A request that FakeWorker answers only once it is cancelled."""
    return predict_request(HOLD_MARK)


@pytest.fixture(autouse=True)
def _needs_nghttp2() -> None:
    try:
        nghttp2_api.load_library()
    except LibraryError as error:
        pytest.skip(f"the native gRPC edge cannot run here: {error}")


@pytest.fixture
def served(tmp_path: pathlib.Path) -> Iterator[Scene]:
    with scene(tmp_path) as made:
        yield made


@pytest.fixture
def client(served: Scene) -> Iterator[RawClient]:
    with RawClient(served.port) as made:
        yield made


def resident_bytes() -> int:
    return int(pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_cut_at_every_byte_is_the_same_message(served: Scene, client: RawClient) -> None:
    message = predict_request(b"x" * 40)
    data = framed(message)
    for cut in range(len(data) + 1):
        stream_id = client.start()
        client.send(stream_id, data[:cut])
        client.send(stream_id, data[cut:], end=True)
        assert client.finish(stream_id).messages == [message]
    stream_id = client.start()
    client.send(stream_id, data, end=True, chunk=1)
    stream = client.finish(stream_id)
    assert stream.messages == [message]
    assert stream.headers[":status"] == "200"
    assert stream.headers["content-type"] == "application/grpc"
    assert stream.trailers == {"grpc-status": "0"}
    until(served.is_at_rest)


@pytest.mark.parametrize("size", [0, 1, 3_200, 60_000, 600_000, 20_000_000, 200_000_000])
def test_messages_of_any_size_go_both_ways(client: RawClient, size: int) -> None:
    message = predict_request(os.urandom(size))
    assert client.ask(message).messages == [message]


def test_a_client_that_sends_byte_by_byte_holds_nobody_up(served: Scene, client: RawClient) -> None:
    message = predict_request(b"x" * 40)
    with RawClient(served.port) as slow:
        stream_id = slow.http2.get_next_available_stream_id()
        slow.streams[stream_id] = Stream()
        fields = {":method": "POST", ":scheme": "http", ":path": PREDICT, ":authority": "test"}
        slow.http2.send_headers(stream_id, list((fields | {"content-type": "application/grpc"}).items()))
        slow.http2.send_data(stream_id, framed(message), end_stream=True)
        slow.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in slow.http2.data_to_send():
            slow.socket.sendall(bytes([byte]))
            assert client.ask(message).messages == [message]
        assert slow.finish(stream_id).messages == [message]
    until(served.is_at_rest)


def test_the_model_spec_may_stand_anywhere_and_in_tasks(client: RawClient) -> None:
    spec = bytes([0x0A, 3, 0x0A, 1]) + b"m"
    other = bytes([0x12, 4]) + b"abcd"
    for message in (spec, other + spec, spec + other, bytes([0x0A, 0]) + other + spec):
        assert client.ask(message).messages == [message]
    tasks = bytes([0x0A, len(spec)]) + spec
    assert client.ask(tasks + other, MULTI_INFERENCE).messages == [tasks + other]
    assert client.ask(other, MULTI_INFERENCE).status == (Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
    assert client.ask(other).status == (Code.INVALID_ARGUMENT, "Missing ModelSpec")
    assert client.ask(b"").status == (Code.INVALID_ARGUMENT, "Missing ModelSpec")
    assert client.ask(b"\x0a\x7f").status == (Code.INTERNAL, "")
    status, text = client.ask(predict_request(name="nobody")).status
    assert (status, text) == (Code.NOT_FOUND, "Servable not found for request: Latest(nobody)")


def test_two_gigabytes_announced_reserve_nothing(served: Scene, client: RawClient) -> None:
    before = resident_bytes()
    stream_ids = []
    for _ in range(200):
        stream_ids.append(client.start())
        client.send(stream_ids[-1], struct.pack(">BI", 0, 2**31 - 1) + b"x" * 100)
    until(lambda: served.edge.num_calls == 200)
    until(lambda: served.edge.held_bytes > 0)
    assert served.edge.held_bytes <= 200 * 65536
    assert resident_bytes() - before < 64 << 20
    for stream_id in stream_ids:
        client.http2.reset_stream(stream_id, CANCEL)
    client.flush()
    until(served.is_at_rest)


def test_a_message_above_the_limit_is_refused_as_soon_as_its_length_is_known(tmp_path: pathlib.Path) -> None:
    with scene(tmp_path, max_message_size=1000) as served, RawClient(served.port) as client:
        stream_id = client.start()
        client.send(stream_id, struct.pack(">BI", 0, 1001))
        stream = client.finish(stream_id)
        assert stream.status == (
            Code.RESOURCE_EXHAUSTED,
            "SERVER: Received message larger than max (1001 vs. 1000)",
        )
        assert client.ask(predict_request(b"x" * 900)).status == (0, "")
        until(served.is_at_rest)


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"", Code.INTERNAL, ""),
        (b"\x00\x00", Code.INTERNAL, "The stream ended in the middle of a message"),
        (b"\x00\x00\x00\x00\x05abcd", Code.INTERNAL, "The stream ended in the middle of a message"),
        (b"\x02\x00\x00\x00\x00", Code.INTERNAL, "A message begins with a byte that is neither 0 nor 1"),
        (framed(b"a") + framed(b"b"), Code.INTERNAL, "A unary call has one request message, this one has more"),
        (framed(b"a", 1), Code.INTERNAL, "Compressed flag set with identity or empty encoding"),
    ],
)
def test_bad_framing_fails_its_call_only(client: RawClient, data: bytes, code: Code, text: str) -> None:
    other = client.start()
    stream_id = client.start()
    client.send(stream_id, data, end=True)
    assert client.finish(stream_id).status == (code, text)
    client.send(other, framed(predict_request()), end=True)
    assert client.finish(other).status == (0, "")


def test_gzip_comes_in_and_goes_out(tmp_path: pathlib.Path) -> None:
    message = predict_request(b"x" * 100_000)
    headers = {"grpc-encoding": "gzip", "grpc-accept-encoding": "gzip"}
    with scene(tmp_path, compress_replies=True) as served, RawClient(served.port) as client:
        stream_id = client.start(headers=headers)
        client.send(stream_id, framed(gzip.compress(message), 1), end=True)
        stream = client.finish(stream_id)
        assert stream.headers["grpc-encoding"] == "gzip"
        flag, size = struct.unpack_from(">BI", stream.data)
        assert (flag, size) == (1, len(stream.data) - 5)
        assert gzip.decompress(stream.data[5:]) == message
        assert client.ask(message).messages == [message]  # to one who did not ask for gzip


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_messages_of_any_size_come_in(
    client: RawClient, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    for size in (0, 10, 3_000, 50_000, 2_000_000):  # the larger ones are inflated on another thread
        message = predict_request(os.urandom(size))
        stream_id = client.start(headers={"grpc-encoding": encoding})
        client.send(stream_id, framed(compress(message), 1), end=True)
        assert client.finish(stream_id).messages == [message]


def test_a_message_that_takes_long_to_inflate_holds_nobody_up(tmp_path: pathlib.Path) -> None:
    long = gzip.compress(predict_request(bytes(500_000_000)), 1)
    encoded = {"grpc-encoding": "gzip"}
    # It is more than may be held, which is known once it is inflated.
    with scene(tmp_path, max_held_bytes=100_000_000) as served, RawClient(served.port) as client:
        stream_id = client.start(headers=encoded)
        client.send(stream_id, framed(long, 1), end=True)
        assert client.ask(predict_request()).status == (0, "")
        assert not client.streams[stream_id].has_ended, "it was inflated before the other was answered"
        stream = client.finish(stream_id)
        assert stream.status[0] == Code.RESOURCE_EXHAUSTED
        until(served.is_at_rest)
        # A client that has gone, a deadline and a second message find it while it is inflated.
        gone = client.start(headers=encoded)
        client.send(gone, framed(long, 1), end=True)
        late = client.start(headers={**encoded, "grpc-timeout": "50m"})
        client.send(late, framed(long, 1), end=True)
        twice = client.start(headers=encoded)
        client.send(twice, framed(long, 1) + framed(b"more"), end=True)
        client.http2.reset_stream(gone, CANCEL)
        client.flush()
        assert client.finish(late).status == (Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
        assert client.finish(twice).status[0] == Code.INTERNAL
        until(served.is_at_rest)
        assert client.ask(predict_request()).status == (0, "")


def test_an_edge_closes_while_a_message_is_inflated(tmp_path: pathlib.Path) -> None:
    long = gzip.compress(predict_request(bytes(300_000_000)), 1)
    with scene(tmp_path) as served, RawClient(served.port) as client:
        for _ in range(3):
            stream_id = client.start(headers={"grpc-encoding": "gzip"})
            client.send(stream_id, framed(long, 1), end=True)
        assert client.ask(predict_request()).status == (0, "")


def test_a_bomb_is_defused_and_broken_gzip_is_an_error(tmp_path: pathlib.Path) -> None:
    bomb = gzip.compress(bytes(300_000_000), 9)
    with scene(tmp_path, max_message_size=1 << 20) as served, RawClient(served.port) as client:
        before = resident_bytes()
        for data, code in (
            (bomb, Code.RESOURCE_EXHAUSTED),
            (b"no gzip", Code.INTERNAL),
            (b"no gzip either" * 1000, Code.INTERNAL),
        ):
            stream_id = client.start(headers={"grpc-encoding": "gzip"})
            client.send(stream_id, framed(data, 1), end=True)
            assert client.finish(stream_id).status[0] == code
        assert resident_bytes() - before < 32 << 20
        assert client.ask(b"", headers={"grpc-encoding": "br"}).status[0] == Code.UNIMPLEMENTED
        until(served.is_at_rest)


# --- headers, statuses, deadlines -------------------------------------------------------------------------------------


def test_what_is_no_grpc_gets_an_http_status(client: RawClient) -> None:
    for headers, status in (({":method": "GET"}, "405"), ({"content-type": "text/html"}, "415")):
        assert client.finish(client.start(headers=headers, end=True)).headers[":status"] == status


def test_an_unknown_method_is_unimplemented_before_the_client_has_sent_all(client: RawClient) -> None:
    stream = client.finish(client.start("/no.Service/Method"))
    assert stream.status == (Code.UNIMPLEMENTED, "")
    assert "content-type" in stream.headers  # trailers only: one block of headers
    assert not stream.trailers


def test_headers_above_the_limit_are_refused_and_the_connection_lives(tmp_path: pathlib.Path) -> None:
    with scene(tmp_path, max_header_list_size=1000) as served, RawClient(served.port) as client:
        stream = client.finish(client.start(headers={"x-long": "y" * 2000}, end=True))
        assert stream.status[0] == Code.RESOURCE_EXHAUSTED
        assert client.ask(predict_request()).status == (0, "")


def test_a_long_error_is_cut_and_percent_encoded(client: RawClient) -> None:
    status, text = client.ask(predict_request(name="ü" * 2000)).status
    assert status == Code.NOT_FOUND
    assert text.endswith("...TRUNCATED")
    encoded = text.removesuffix("...TRUNCATED")
    assert encoded.startswith("Servable not found for request: Latest(%C3%BC")
    plain = encoded.replace("%C3%BC", "ü")
    assert 1023 <= len(plain.encode()) <= 1024


@pytest.mark.parametrize("timeout", ["1000000n", "100000u", "50m", "1S"])
def test_a_deadline_fires_though_the_worker_hangs(served: Scene, client: RawClient, timeout: str) -> None:
    began_s = time.monotonic()
    assert client.ask(predict_request(), headers={"grpc-timeout": "20S"}).status == (0, "")
    stream = client.ask(hold_request(), headers={"grpc-timeout": timeout})
    assert stream.status[0] == Code.DEADLINE_EXCEEDED
    assert time.monotonic() - began_s < 10
    # If the worker had it at all, it was told.
    until(lambda: len(served.worker.cancelled) == len(served.worker.requests) - 1)
    until(served.is_at_rest)


def test_a_deadline_fires_while_the_message_is_still_coming(served: Scene, client: RawClient) -> None:
    stream_id = client.start(headers={"grpc-timeout": "50m"})
    client.send(stream_id, b"\x00\x00")
    assert client.finish(stream_id).status == (Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
    assert client.ask(b"", headers={"grpc-timeout": "0S"}).status[0] == Code.DEADLINE_EXCEEDED
    assert client.ask(b"", headers={"grpc-timeout": "soon"}).status[0] == Code.INTERNAL
    until(served.is_at_rest)


def test_a_client_that_resets_cancels_at_the_worker(served: Scene, client: RawClient) -> None:
    stream_id = client.start()
    client.send(stream_id, framed(hold_request()), end=True)
    until(lambda: served.plane.num_outstanding == 1 and len(served.worker.requests) == 1)
    client.http2.reset_stream(stream_id, CANCEL)
    client.flush()
    until(lambda: len(served.worker.cancelled) == 1)
    until(served.is_at_rest)
    assert served.edge.counters["cancelled"] == 1


def test_a_client_that_vanishes_cancels_at_the_worker(served: Scene) -> None:
    with RawClient(served.port) as client:
        stream_id = client.start()
        client.send(stream_id, framed(hold_request()), end=True)
        until(lambda: len(served.worker.requests) == 1)
    until(lambda: len(served.worker.cancelled) == 1)
    until(served.is_at_rest)
    until(lambda: served.edge.num_connections == 0)


# --- connections ------------------------------------------------------------------------------------------------------


def test_what_is_no_http2_is_closed(served: Scene) -> None:
    for data in (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        os.urandom(100),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 50,
    ):
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.settimeout(20)
            connection.sendall(data)
            while connection.recv(4096):
                pass
    until(lambda: served.edge.num_connections == 0)
    # The third one keeps to HTTP/2's beginning, so that nghttp2 can answer it with a GOAWAY.
    assert served.edge.counters["protocol_errors"] == 2


def test_ping_is_answered(client: RawClient) -> None:
    client.http2.ping(b"12345678")
    client.flush()
    while not client.pings:
        client.receive()


def test_drain_lets_calls_end_and_takes_those_already_on_their_way(served: Scene, client: RawClient) -> None:
    stream_id = client.start(headers={"grpc-timeout": "500m"})
    client.send(stream_id, framed(hold_request()), end=True)
    until(lambda: served.edge.num_calls == 1)
    served.edge.stop_listening()
    served.edge.drain()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port))
    while not client.goaways:
        client.receive()
    assert client.goaways[0] == (NO_ERROR, 2**31 - 1)
    assert served.edge.num_connections == 1
    assert client.finish(stream_id).status[0] == Code.DEADLINE_EXCEEDED
    while not client.is_closed:
        client.receive()
    assert client.goaways[-1] == (NO_ERROR, stream_id)
    until(lambda: served.edge.num_connections == 0)


def test_a_connection_past_its_age_is_asked_to_go_and_closed_after_the_grace(tmp_path: pathlib.Path) -> None:
    with (
        scene(tmp_path, max_connection_age_us=100_000, max_connection_age_grace_us=200_000) as served,
        RawClient(served.port) as client,
    ):
        client.start()  # never ends by itself
        while not client.is_closed:
            client.receive()
        assert client.goaways
        until(served.is_at_rest)


def test_an_idle_connection_is_asked_to_go(tmp_path: pathlib.Path) -> None:
    with scene(tmp_path, max_connection_idle_us=100_000) as served, RawClient(served.port) as client:
        assert client.ask(predict_request()).status == (0, "")
        while not client.is_closed:
            client.receive()


def test_a_client_that_answers_no_ping_is_dropped(tmp_path: pathlib.Path) -> None:
    with scene(tmp_path, keepalive_time_us=100_000, keepalive_timeout_us=100_000) as served:
        with RawClient(served.port):
            until(lambda: served.edge.num_connections == 1)
            until(lambda: served.edge.counters["keepalive_deaths"] == 1)
        with RawClient(served.port) as client:
            end_s = time.monotonic() + 0.5
            client.socket.settimeout(0.05)
            while time.monotonic() < end_s:
                try:
                    client.receive()
                except TimeoutError:
                    continue
            assert not client.is_closed


def test_more_streams_than_allowed_are_refused(tmp_path: pathlib.Path) -> None:
    with scene(tmp_path, max_concurrent_streams=2) as served, RawClient(served.port) as client:
        client.receive()  # the settings
        assert client.http2.remote_settings.max_concurrent_streams == 2
        first, second = client.start(), client.start()
        client.http2.remote_settings[3] = 100  # h2 would not let the test go on otherwise
        client.http2.remote_settings.acknowledge()
        third = client.start()
        assert client.finish(third).reset_code is not None or client.is_closed
        assert served.edge.num_calls <= 2
        assert first != second


def test_resetting_streams_faster_than_anybody_should_ends_the_connection(served: Scene, client: RawClient) -> None:
    with contextlib.suppress(OSError):
        while not client.goaways:
            for _ in range(100):
                client.http2.reset_stream(client.start(), CANCEL)
                client.flush()
            client.http2.ping(b"answered")
            client.receive()
    while not client.is_closed:
        client.receive()
    assert (ENHANCE_YOUR_CALM, client.goaways[-1][1]) in client.goaways
    assert served.edge.counters["rapid_resets"] == 1
    until(served.is_at_rest)


def test_a_reader_that_stalls_costs_a_bounded_amount_of_memory(tmp_path: pathlib.Path) -> None:
    """It asks for replies, 1 MB each, and takes none: in all no more than it may hold, whatever it asks."""
    message = framed(predict_request(b"x" * 1_000_000))
    with (
        scene(tmp_path, max_unsent_bytes=10 << 20) as served,
        RawClient(served.port, acknowledges=False) as client,
        RawClient(served.port) as other,
    ):
        streams = []
        for _ in range(60):
            streams.append(client.start())
            client.send(streams[-1], message, end=True)
        until(lambda: served.edge.counters["refused_for_memory"] > 0)
        assert served.edge.held_bytes < 80 << 20
        assert other.ask(predict_request()).status == (0, "")
        client.socket.close()
        until(served.is_at_rest)


def test_beyond_the_servers_budget_a_message_is_refused(tmp_path: pathlib.Path) -> None:
    with scene(tmp_path, max_held_bytes=1 << 20) as served, RawClient(served.port) as client:
        waiting = client.start()
        client.send(waiting, struct.pack(">BI", 0, 2_000_000) + b"x" * 900_000)
        until(lambda: served.edge.held_bytes > 500_000)
        stream = client.ask(predict_request(b"x" * 600_000))
        assert stream.status[0] == Code.RESOURCE_EXHAUSTED
        client.http2.reset_stream(waiting, CANCEL)
        client.flush()
        until(served.is_at_rest)
        assert client.ask(predict_request(b"x" * 100_000)).status == (0, "")


@pytest.mark.timeout(300)
def test_ten_thousand_connections_dropped_at_every_stage_leave_nothing_behind(tmp_path: pathlib.Path) -> None:
    with scene(tmp_path, num_threads=2) as served:
        http2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        http2.initiate_connection()
        fields = {":method": "POST", ":scheme": "http", ":path": PREDICT, ":authority": "test"}
        fields |= {"content-type": "application/grpc", "grpc-timeout": "10S"}
        http2.send_headers(1, list(fields.items()))
        http2.send_data(1, framed(hold_request()), end_stream=True)
        sent = http2.data_to_send()
        with RawClient(served.port) as client:  # ZeroMQ connects with the first request
            assert client.ask(predict_request()).status == (0, "")
        until(lambda: served.edge.num_connections == 0)
        descriptors = len(os.listdir("/proc/self/fd"))
        for number in range(10_000):
            connection = socket.create_connection(("127.0.0.1", served.port))
            # Some whole, the others cut anywhere.
            connection.sendall(sent[: number % (len(sent) + 20)])
            if number % 3 == 0:
                # Closes with a reset instead of the usual way.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        until(lambda: served.edge.num_connections == 0)
        until(served.is_at_rest)
        assert len(os.listdir("/proc/self/fd")) == descriptors
        counters = served.edge.counters
        assert counters["accepted"] == counters["closed"] > 10_000 * 0.9
        with RawClient(served.port) as client:
            assert client.ask(predict_request()).status == (0, "")


def test_connections_are_spread_over_the_threads(tmp_path: pathlib.Path) -> None:
    with scene(tmp_path, num_threads=3) as served:
        clients = [RawClient(served.port) for _ in range(9)]
        for client in clients:
            assert client.ask(predict_request()).status == (0, "")
        assert served.edge.num_connections == 9
        for client in clients:
            client.socket.close()
        until(lambda: served.edge.num_connections == 0)


# --- calls that Python serves -----------------------------------------------------------------------------------------


def test_a_handled_call_streams_both_ways_before_the_client_has_ended(served: Scene, client: RawClient) -> None:
    stream_id = client.start(HANDLED, {"x-key": "value", "y-bin": "AAE", "grpc-timeout": "10S"})
    for number in range(3):
        client.send(stream_id, framed(b"message %d" % number))
        while len(client.streams[stream_id].messages) <= number:
            client.receive()
    client.send(stream_id, b"", end=True)
    stream = client.finish(stream_id)
    assert stream.messages == [b"message 0", b"message 1", b"message 2"]
    assert stream.status == (0, "")
    (call,) = served.started
    assert (b"x-key", b"value") in call.metadata
    assert (b"y-bin", b"AAE") in call.metadata
    assert 0 < call.deadline_us - time.monotonic_ns() // 1000 < 10_000_000
    until(lambda: served.events[-1][0] == EVENT_CLOSED)
    assert [kind for kind, _, _ in served.events] == [
        EVENT_START,
        *[EVENT_MESSAGE] * 3,
        EVENT_END,
        EVENT_CLOSED,
    ]
    until(served.is_at_rest)


def test_a_handled_call_may_stream_out_for_as_long_as_the_client_listens(served: Scene, client: RawClient) -> None:
    served.echoes = False
    stream_id = client.start(HANDLED)
    client.send(stream_id, framed(b"watch"), end=True)
    until(lambda: len(served.started) == 1)
    (call,) = served.started
    for number in range(5):
        call.send(b"%d" % number)
        while len(client.streams[stream_id].messages) <= number:
            client.receive()
    client.http2.reset_stream(stream_id, CANCEL)
    client.flush()
    until(lambda: served.events[-1][0] == EVENT_CLOSED)
    call.send(b"nobody hears this")
    call.finish(0)
    until(served.is_at_rest)


def test_python_hears_when_a_slow_client_has_taken_a_message(served: Scene) -> None:
    served.echoes = False
    with RawClient(served.port, acknowledges=False) as client:
        stream_id = client.start(HANDLED)
        client.send(stream_id, framed(b""), end=True)
        until(lambda: len(served.started) == 1)
        served.started[0].send(bytes(1_000_000), reports=True)
        while len(client.streams[stream_id].data) < 65535:
            client.receive()
        assert EVENT_DRAINED not in [kind for kind, _, _ in served.events]
        client.http2.increment_flow_control_window(2_000_000)
        client.http2.increment_flow_control_window(2_000_000, stream_id)
        client.flush()
        while len(client.streams[stream_id].data) < 1_000_005:
            client.receive()
        until(lambda: EVENT_DRAINED in [kind for kind, _, _ in served.events])
        served.started[0].finish(int(Code.ABORTED), "entzwei: é".encode())
        assert client.finish(stream_id).status == (Code.ABORTED, "entzwei: %C3%A9")


def test_a_client_waits_while_python_takes_nothing(served: Scene, client: RawClient) -> None:
    served.echoes = False
    stream_id = client.start(HANDLED)
    client.receive()
    sent = 0
    client.socket.settimeout(0.05)
    while client.http2.local_flow_control_window(stream_id) > 200_000 and sent < 100 << 20:
        client.send(stream_id, framed(bytes(100_000)))
        sent += 100_000
        with contextlib.suppress(TimeoutError):
            client.receive()
    assert sent < 4 << 20
    client.socket.settimeout(20)
    served.started[0].acknowledge(sent)
    while client.http2.local_flow_control_window(stream_id) <= 200_000:
        client.receive()


def test_a_handled_call_that_outlives_its_deadline_is_closed(served: Scene, client: RawClient) -> None:
    served.echoes = False
    stream_id = client.start(HANDLED, {"grpc-timeout": "50m"})
    assert client.finish(stream_id).status == (Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
    until(lambda: [kind for kind, _, _ in served.events] == [EVENT_START, EVENT_CLOSED])
