"""Large payloads by shared memory: right values, whatever is full, cancelled or killed; and nothing is left."""

import concurrent.futures
import contextlib
import gzip
import http.client
import json
import os
import pathlib
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator

import grpc
import numpy
import pytest

from tensorgate.gateway.python_command import python_command
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tests.harness.model_server import ModelServer, StartServer, predict_request, process_exists, wait_until

LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
Array = numpy.ndarray[tuple[int], numpy.dtype[numpy.float32]]


def values(num_bytes: int, seed: int = 0) -> Array:
    return numpy.random.default_rng(seed).random(num_bytes // 4, numpy.float32)


def request_of(content: Array) -> PredictRequest:
    tensor = TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=content.tobytes())
    tensor.tensor_shape.dim.add(size=len(content))
    return predict_request("half_plus_two", x=tensor)


def answer_of(response: PredictResponse) -> Array:
    return numpy.array(response.outputs["y"].float_val, numpy.float32)


def expected(content: Array, version: int = 2) -> Array:
    return content * numpy.float32(0.5) + numpy.float32(version)


Connect = Callable[[ModelServer], prediction_service_pb2_grpc.PredictionServiceStub]


@pytest.fixture
def stub() -> Iterator[Connect]:
    """Connects to a server, each time anew, without bounds to the size of messages."""
    with contextlib.ExitStack() as stack:

        def connect(server: ModelServer) -> prediction_service_pb2_grpc.PredictionServiceStub:
            arguments = [*LIMITS, ("grpc.use_local_subchannel_pool", 1)]
            channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.port}", arguments))
            return prediction_service_pb2_grpc.PredictionServiceStub(channel)

        yield connect


def run_all(work: Callable[[int], None], count: int) -> None:
    """Runs it on so many threads; raises what one of them raised."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        list(pool.map(work, range(count)))


def metric(server: ModelServer, name: str, holds: str) -> float:
    text = server.rest("GET", "/metrics")[1]
    wanted = f'tensorgate_shared_memory_{name}{{holds="{holds}"}}'
    (line,) = [line for line in text.splitlines() if line.startswith(wanted)]
    return float(line.rpartition(" ")[2])


def is_unused(server: ModelServer) -> bool:
    return metric(server, "used_bytes", "requests") == 0 and metric(server, "used_bytes", "replies") == 0


def maps_shared_memory(pid: int) -> int:
    return pathlib.Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").count("memfd:tensorgate")


@pytest.mark.parametrize("flags", [[], ["--shared_memory_mb=0"], ["--worker_transport=zmq"]], ids=["on", "off", "zmq"])
def test_values_are_right_at_every_size_both_ways(
    start_server: StartServer, model_config: Callable[..., str], stub: Connect, flags: list[str]
) -> None:
    server = start_server(model_config("half_plus_two"), *flags)
    predict = stub(server).Predict
    for seed, num_bytes in enumerate((4, 32_000, 33_000, 60_000, 70_000, 600_000, 10_000_000)):
        content = values(num_bytes, seed)
        for _ in range(2):
            assert numpy.array_equal(answer_of(predict(request_of(content), timeout=60)), expected(content))
    assert maps_shared_memory(server.worker_pid) == (0 if flags else 2)
    if not flags:
        wait_until(lambda: is_unused(server), "the memory to be unused")
        assert metric(server, "full_total", "requests") == metric(server, "full_total", "replies") == 0


def test_many_at_once_each_get_their_own_values(
    start_server: StartServer, model_config: Callable[..., str], stub: Connect
) -> None:
    server = start_server(model_config("half_plus_two"), "--grpc_edge_threads=2", "--num_workers=2")
    predict = stub(server).Predict
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(6):
            content = values((60_000, 600_000, 3_000_000)[(number + turn) % 3], 100 * number + turn)
            if not numpy.array_equal(answer_of(predict(request_of(content), timeout=120)), expected(content)):
                wrong.append(number)

    run_all(work, 12)
    assert wrong == []
    wait_until(lambda: is_unused(server), "the memory to be unused")


def test_what_finds_no_room_is_sent_and_counted(
    start_server: StartServer, model_config: Callable[..., str], stub: Connect
) -> None:
    server = start_server(model_config("half_plus_two"), "--shared_memory_mb=1", "--shared_memory_threshold_bytes=1000")
    predict = stub(server).Predict

    def work(number: int) -> None:
        for turn in range(5):
            content = values(400_000, 100 * number + turn)
            assert numpy.array_equal(answer_of(predict(request_of(content), timeout=120)), expected(content))

    run_all(work, 8)
    content = values(5_000_000)
    assert numpy.array_equal(answer_of(predict(request_of(content), timeout=60)), expected(content))
    assert metric(server, "full_total", "requests") > 0
    assert metric(server, "full_total", "replies") > 0
    assert metric(server, "bytes", "requests") == 1 << 20
    wait_until(lambda: is_unused(server), "the memory to be unused")


def test_compressed_requests_and_those_over_rest_are_answered_right(
    start_server: StartServer, model_config: Callable[..., str], stub: Connect
) -> None:
    server = start_server(model_config("half_plus_two"))
    content = numpy.round(values(600_000), 2)
    response = stub(server).Predict(request_of(content), timeout=60, compression=grpc.Compression.Gzip)
    assert numpy.array_equal(answer_of(response), expected(content))
    for headers, encode in (({}, bytes), ({"Content-Encoding": "gzip"}, gzip.compress)):
        connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=60)
        with contextlib.closing(connection):
            body = encode(json.dumps({"instances": content.tolist()}).encode())
            connection.request("POST", "/v1/models/half_plus_two:predict", body, headers)
            answer = json.loads(connection.getresponse().read())
        assert numpy.allclose(answer["predictions"], expected(content))
    assert metric(server, "used_bytes", "replies") == 0
    wait_until(lambda: is_unused(server), "the memory to be unused")


def test_clients_that_give_up_leave_nothing_in_the_memory(
    start_server: StartServer, model_config: Callable[..., str], stub: Connect
) -> None:
    server = start_server(model_config("half_plus_two"))
    predict = stub(server).Predict
    request = request_of(values(3_000_000))
    for round_number in range(8):
        calls = [predict.future(request, timeout=60 if number % 2 else 0.02) for number in range(8)]
        time.sleep(0.005 * round_number)
        for call in calls[::3]:
            call.cancel()
        for call in calls:
            with contextlib.suppress(grpc.FutureCancelledError):
                call.exception(timeout=60)
    # A channel that goes away in the middle of its messages.
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", LIMITS) as channel:
        calls = [prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict.future(request) for _ in range(6)]
        time.sleep(0.02)
    wait_until(lambda: is_unused(server), "the memory to be unused")
    content = values(600_000)
    assert numpy.array_equal(answer_of(predict(request_of(content), timeout=60)), expected(content))


@pytest.mark.timeout(240)
def test_workers_killed_in_the_middle_of_large_requests_leave_nothing_in_the_memory(
    start_server: StartServer, model_config: Callable[..., str], stub: Connect
) -> None:
    server = start_server(model_config("half_plus_two"), "--num_workers=2")
    stop = threading.Event()
    codes: set[grpc.StatusCode] = set()
    num_right = [0]

    def load(number: int) -> None:
        predict = stub(server).Predict
        content = values((200_000, 600_000, 2_000_000)[number % 3], number)
        request, right = request_of(content), expected(content)
        while not stop.is_set():
            try:
                response = predict(request, timeout=60)
            except grpc.RpcError as error:
                codes.add(error.code())
                time.sleep(0.01)
                continue
            assert numpy.array_equal(answer_of(response), right)
            num_right[0] += 1

    def wait_for_answers(before: int) -> None:
        wait_until(lambda: num_right[0] > before + 20, "answers", 120)

    def kill_workers() -> None:
        for number in range(8):
            wait_for_answers(num_right[0])
            live = sorted(server.live_workers.values())
            if live:
                os.kill(live[number % len(live)], signal.SIGKILL)
        wait_for_answers(num_right[0])

    def work(number: int) -> None:
        try:
            if number:
                load(number)
            else:
                kill_workers()
        finally:
            stop.set()

    run_all(work, 7)
    assert codes <= {grpc.StatusCode.UNAVAILABLE}
    wait_until(lambda: is_unused(server), "the memory to be unused")
    wait_until(lambda: len(server.live_workers) == 2, "both workers")
    # Of dead workers' memory nothing is mapped any more: that for requests, and each live worker's for replies.
    wait_until(lambda: maps_shared_memory(server.process.pid) == 3, "the dead workers' memory to be gone")
    open_files = os.listdir(f"/proc/{server.process.pid}/fd")
    links = [os.readlink(f"/proc/{server.process.pid}/fd/{each}") for each in open_files if each.isdigit()]
    assert sum("memfd:tensorgate" in link for link in links) == 1


def test_a_gateway_that_is_killed_takes_its_workers_and_all_of_the_memory_with_it(
    start_server: StartServer, model_config: Callable[..., str], stub: Connect
) -> None:
    server = start_server(model_config("half_plus_two"))
    predict = stub(server).Predict
    predict(request_of(values(600_000)), timeout=60)
    worker = server.worker_pid
    assert maps_shared_memory(worker) == maps_shared_memory(server.process.pid) == 2
    calls = [predict.future(request_of(values(2_000_000)), timeout=60) for _ in range(10)]
    server.stop(signal.SIGKILL)
    wait_until(lambda: not process_exists(worker), "the worker to end")
    for call in calls:
        call.exception(timeout=60)


def test_a_worker_that_cannot_have_the_memory_serves_without_it(
    start_server: StartServer, model_config: Callable[..., str], stub: Connect, tmp_path: pathlib.Path
) -> None:
    # Closes every descriptor but the pipe to the gateway, as a program in between may.
    script = tmp_path / "worker.sh"
    script.write_text(
        "#!/bin/bash\n"
        'for each in "$@"; do [[ $each == --parent_fd=* ]] && keep=${each#*=}; done\n'
        "for path in /proc/self/fd/*; do\n"
        "  fd=${path##*/}\n"
        '  if [[ $fd -gt 2 && $fd -ne $keep && $fd -ne 255 ]]; then eval "exec $fd>&-"; fi\n'
        "done\n"
        f'exec {shlex.join(python_command("tensorgate.workers.main"))} "$@"\n',
        encoding="utf-8",
    )
    server = start_server(model_config("half_plus_two"), f"--worker_command=bash {script}")
    content = values(600_000)
    response = stub(server).Predict(request_of(content), timeout=60)
    assert numpy.array_equal(answer_of(response), expected(content))
    assert "no memory is shared with the gateway" in server.log
    assert maps_shared_memory(server.worker_pid) == 0
    wait_until(lambda: is_unused(server), "the memory to be unused")
