"""What is fuzzed: each target reads bytes as a client or a file would send them, and checks what comes out.

  python -m tests.fuzz.targets TARGET [libFuzzer options]        in the environment that run.sh makes

A target is made by a function here, once, and is then called with every input; one that raises has found something.
test_fuzz.py calls them too, with the corpus and with mutations of it.
"""

import contextlib
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

Target = Callable[[bytes], None]
TESTS = pathlib.Path(__file__).parents[1]


@contextlib.contextmanager
def proto_scan() -> Iterator[Target]:
    """The gateway's scanners of requests, and the worker's of MetaGraphDefs. protobuf's own parser is the judge."""
    from google.protobuf.message import DecodeError

    from tensorgate._native import proto_scan
    from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest

    def target(data: bytes) -> None:
        for scan in (proto_scan.scan_task_model_spec, proto_scan.signature_def_map, proto_scan.may_run_long):
            with contextlib.suppress(proto_scan.ScanError):
                scan(data)
        try:
            name, version, label, signature = proto_scan.scan_model_spec(data)
        except proto_scan.ScanError:
            scanned = None
        else:
            scanned = (name or "", version, label, signature)
        try:
            spec = PredictRequest.FromString(data).model_spec
        except DecodeError:
            return
        choice = spec.WhichOneof("version_choice")
        expected = (
            spec.name,
            spec.version.value if choice == "version" else None,
            spec.version_label if choice == "version_label" else None,
            spec.signature_name,
        )
        assert scanned == expected, (scanned, expected)

    yield target


@contextlib.contextmanager
def tensor() -> Iterator[Target]:
    """TensorProtos to TensorFlow's tensors."""
    from google.protobuf.message import DecodeError

    from tensorgate._native import tf_c_api
    from tensorgate._native.tensor_decode import decode_tensor_proto
    from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto

    tf_c_api.load_library()

    def target(data: bytes) -> None:
        try:
            message = TensorProto.FromString(data)
        except DecodeError:
            message = None
        if message is not None:
            num_elements = 1
            for dim in message.tensor_shape.dim:
                num_elements *= max(dim.size, 0)
            if num_elements > 1 << 20:
                return  # allowed up to 2 GiB, which would only cost time here
        try:
            dtype, shape, _ = decode_tensor_proto(data)
        except ValueError as error:
            is_malformed = str(error) == "malformed"
        else:
            is_malformed = False
            # Without a message: what is broken lies in a field that no tensor's values are in.
            assert message is None or (dtype, shape) == (
                message.dtype,
                tuple(dim.size for dim in message.tensor_shape.dim),
            )
        assert message is None or not is_malformed, "protobuf reads it"

    yield target


@contextlib.contextmanager
def predict() -> Iterator[Target]:
    """Whole requests in the worker: scan, binding to a signature, tensors, a run, the answer."""
    from tensorgate._native import tf_c_api
    from tensorgate._native.execution_pool import PREDICT, run_once
    from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictResponse
    from tensorgate.workers.saved_model import open_saved_model

    with tempfile.TemporaryDirectory() as folder:
        given = os.environ.get("TENSORGATE_FUZZ_MODELS")
        if given is None:
            subprocess.run([sys.executable, TESTS / "saved_models" / "make_models.py", folder], check=True)
        tf_c_api.load_library()
        session = open_saved_model(str(pathlib.Path(given or folder) / "pair" / "1"), 1, ["serve"], b"")

        def target(data: bytes) -> None:
            code, _, response, _ = run_once(session, PREDICT, data, -1)
            if code == 0:
                PredictResponse.FromString(response)

        yield target
        session.close()


@contextlib.contextmanager
def frames() -> Iterator[Target]:
    """Headers of the frames between gateway and worker: what reads one reads the same from what it would write."""
    from tensorgate._native import frame_header

    pairs = (
        (frame_header.unpack_request, frame_header.pack_request),
        (frame_header.unpack_reply, frame_header.pack_reply),
        (frame_header.unpack_cancel, frame_header.pack_cancel),
    )

    def target(data: bytes) -> None:
        for unpack, pack in pairs:
            try:
                read = unpack(data)
            except frame_header.FrameError:
                continue
            assert unpack(pack(*read)) == read  # type: ignore[operator]

    yield target


@contextlib.contextmanager
def worker_stream() -> Iterator[Target]:
    """What a worker's socket reads: the frames' stream, the headers in it, requests for no servable."""
    import zmq

    from tensorgate._native.data_loop import DataLoop

    with tempfile.TemporaryDirectory() as folder, zmq.Context() as context:
        path = f"{folder}/stream"
        loop = DataLoop(context, "inproc://data", "inproc://cancels", 7, 1, 0, path)
        loop.start()

        def target(data: bytes) -> None:
            if len(data) > 1:
                # Mostly well-formed prefixes; the last byte says how much of the rest is the header.
                cut = data[-1] % len(data)
                data = struct.pack("=QQ", cut, len(data) - 1 - cut) + data[:-1] if data[-1] < 250 else data[:-1]
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
                _say_and_hear(connection, data)

        yield target
        loop.stop()


@contextlib.contextmanager
def json_request() -> Iterator[Target]:
    """REST's bodies: what the native reader takes is a valid PredictRequest, and the JSON it stood for is valid."""
    from tensorgate._native.json_request import read_request
    from tensorgate._native.json_text import base64_bytes, unescaped
    from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest

    # DataTypes of inputs by the names that the corpus uses: float, int64, string, bool, double, uint8.
    dtypes = ({"x": 1}, {"x": 9}, {"x": 7}, {"x": 10}, {"x": 2, "y": 4}, {"x": 7, "y": 1})

    def target(data: bytes) -> None:
        unescaped(data)
        base64_bytes(data)
        if read_request(data) is None:
            return
        json.loads(data.decode("utf-8", "surrogateescape"))  # upstream's reader does not mind broken UTF-8 either
        for each in dtypes:
            request = read_request(data)
            assert request is not None
            message = request.serialize(b"\x0a\x01m", each)
            if message is not None:
                PredictRequest.FromString(message)

    yield target


@contextlib.contextmanager
def json_reply() -> Iterator[Target]:
    """PredictResponses to JSON: what is written is JSON."""
    from tensorgate._native.json_reply import write_reply
    from tensorgate._native.json_text import base64_text, json_string

    def target(data: bytes) -> None:
        for is_row_form in (True, False):
            text = write_reply(data, is_row_form)
            if text is not None:
                json.loads(text.decode("utf-8", "surrogateescape"))  # as strings of the model's may be
        base64_text(data)
        json_string(data)

    yield target


@contextlib.contextmanager
def grpc_wire() -> Iterator[Target]:
    """Values of gRPC's headers."""
    from tensorgate._native import grpc_wire

    def target(data: bytes) -> None:
        timeout_us = grpc_wire.timeout_us(data)
        assert timeout_us is None or timeout_us >= 0
        grpc_wire.encoding(data)
        grpc_wire.encodings(data)
        grpc_wire.content_type_is_grpc(data)
        assert all(32 <= byte < 127 for byte in grpc_wire.percent_encoded(data))
        assert len(grpc_wire.grpc_message(data)) < 4096
        assert grpc_wire.bin_header(grpc_wire.base64_unpadded(data)) == data
        grpc_wire.bin_header(data)

    yield target


@contextlib.contextmanager
def config() -> Iterator[Target]:
    """Config files and command lines: an error that names the fault, or a configuration."""
    from tensorgate.gateway.config_files import models_of, read_model_server_config
    from tensorgate.gateway.flag_parser import parse
    from tensorgate.gateway.model_settings import read_model_settings
    from tensorgate.protos.status_codes import ServingError

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/config"

        def target(data: bytes) -> None:
            pathlib.Path(path).write_bytes(data)
            with contextlib.suppress(ServingError):
                models_of(read_model_server_config(path))
            with contextlib.suppress(ServingError):
                read_model_settings(path)
            parse(data.decode("utf-8", "surrogateescape").split("\n"))

        yield target


@contextlib.contextmanager
def access_tokens() -> Iterator[Target]:
    """A header, a line end, a file of tokens: only a token that the file has lets anybody in."""
    from tensorgate._native.access_tokens import AccessTokens
    from tensorgate.gateway.access_tokens import ANY_ROLE, parse_tokens
    from tensorgate.protos.status_codes import ServingError

    def target(data: bytes) -> None:
        header, _, text = data.partition(b"\n")
        try:
            tokens = parse_tokens(text)
        except ServingError:
            tokens = [(b"0123456789abcdef", ANY_ROLE)]
        found = AccessTokens(tokens).refusal(header, ANY_ROLE)
        scheme, _, token = header.partition(b" ")
        is_known = scheme.lower() == b"bearer" and token.lstrip(b" ") in dict(tokens)
        assert (found is None) == is_known, found

    yield target


@contextlib.contextmanager
def rest_url() -> Iterator[Target]:
    """Paths of REST requests."""
    from tensorgate.gateway.rest.url_grammar import is_api_path, parse_route
    from tensorgate.protos.status_codes import ServingError

    def target(data: bytes) -> None:
        with contextlib.suppress(ServingError):
            if is_api_path(data):
                for verb in ("GET", "POST"):
                    parse_route(verb, data)

    yield target


# --- the HTTP/2 edge --------------------------------------------------------------------------------------------------

# An input of the edge's target is a list of frames, each [kind and shape][flags][stream][size][payload]: so most inputs
# are well-formed frames, and their contents may be anything. From kind 10 on they are shorthands.
_SHAPES = 16


def frames_of(data: bytes) -> bytes:
    """The bytes on the wire that an input stands for."""
    from tests.harness import http2_frames as http2
    from tests.harness.native_grpc import HANDLED, MULTI_INFERENCE, PREDICT, framed, predict_request

    sent, at = [], 0
    while at + 4 <= len(data):
        kind, flags, stream, size = data[at : at + 4]
        payload = data[at + 4 : at + 4 + size]
        at += 4 + size
        kind %= _SHAPES
        stream_id = stream % 32
        if kind < 11:
            sent.append(http2.frame(kind, flags, stream_id, payload))
        elif kind == 11:  # a request's headers, the payload being the method's number and more fields
            fields = [each for each in http2.REQUEST if each[0] != ":path"]
            path = (PREDICT, MULTI_INFERENCE, HANDLED, "/no/method")[payload[0] % 4 if payload else 0]
            encoded = http2.block([(":path", path), *fields]) + payload[1:]
            sent.append(http2.frame(http2.HEADERS, flags & 0x01 | http2.END_HEADERS, stream_id, encoded))
        elif kind == 12:  # one field, named by the flags
            names = (b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"traceparent", b"x-bin", b":path")
            field = http2.literal(names[flags % len(names)], payload[:126])
            encoded = http2.block(http2.REQUEST) + field
            sent.append(http2.frame(http2.HEADERS, http2.END_HEADERS, stream_id, encoded))
        elif kind == 13:  # a message in its frame
            sent.append(http2.frame(http2.DATA, flags & 0x01, stream_id, framed(payload, flags >> 1 & 0x03)))
        elif kind == 14:  # a request of a model that is there
            sent.append(http2.frame(http2.DATA, flags & 0x01, stream_id, framed(predict_request(payload))))
        else:  # no frame at all
            sent.append(payload)
    return b"".join(sent)


@contextlib.contextmanager
def http2() -> Iterator[Target]:
    """Connections to the native gRPC edge: whatever they send, they end, and leave nothing behind."""
    from tests.harness import http2_frames
    from tests.harness.native_grpc import scene, until

    with (
        tempfile.TemporaryDirectory() as folder,
        scene(
            pathlib.Path(folder), max_header_list_size=2000, max_concurrent_streams=10, compress_replies=True
        ) as served,
    ):
        address = ("127.0.0.1", served.port)
        begin = http2_frames.PREFACE + http2_frames.settings()
        count = 0

        def target(data: bytes) -> None:
            nonlocal count
            count += 1
            with socket.create_connection(address) as connection:
                # A reset at the end instead of the usual way, so that 10^7 connections leave no ports in TIME_WAIT.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                _say_and_hear(connection, begin + frames_of(data))
            if count % 1000 == 0:
                until(lambda: served.edge.num_connections == 0)
                until(served.is_at_rest)
                served.events.clear()
                served.started.clear()
                served.worker.requests.clear()

        yield target


def _say_and_hear(connection: socket.socket, data: bytes) -> None:
    """Sends all, then reads until the other side, which sees the end of it, has closed."""
    connection.settimeout(20)
    # Who closes early has read enough.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass


TARGETS: dict[str, Callable[[], contextlib.AbstractContextManager[Target]]] = {
    "proto_scan": proto_scan,
    "tensor": tensor,
    "predict": predict,
    "frames": frames,
    "worker_stream": worker_stream,
    "json_request": json_request,
    "json_reply": json_reply,
    "grpc_wire": grpc_wire,
    "config": config,
    "access_tokens": access_tokens,
    "rest_url": rest_url,
    "http2": http2,
}
# Those whose code is Python, which reports its coverage through the interpreter.
TRACED = {"config", "rest_url"}


def main(name: str, arguments: list[str]) -> None:
    # An editable installation would be found before the instrumented one.
    sys.meta_path[:] = [each for each in sys.meta_path if type(each).__name__ != "ScikitBuildRedirectingFinder"]
    import driver  # type: ignore[import-not-found]

    for variable in ("LD_PRELOAD", "PYTHONMALLOC", "PYTHONPATH"):
        os.environ.pop(variable, None)
    threading.stack_size(0)
    with TARGETS[name]() as target:
        driver.run(["fuzz", *arguments], target, name in TRACED)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
