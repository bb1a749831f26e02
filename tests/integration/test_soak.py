"""Mixed load for as long as asked: answers stay right, and neither process grows.

gRPC and REST on three models, a version change every 30 s (or eight in all, in a short run), one request in a hundred
garbage, one in a hundred given up half-way. TENSORGATE_SOAK_S says how many seconds (60). What is compared is the
second quarter, when pools and caches have filled, with the last one.
"""

import contextlib
import http.client
import json
import os
import pathlib
import random
import shutil
import socket
import statistics
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable

import grpc
import pytest

from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis import prediction_service_pb2_grpc
from tests.harness.http2_frames import PREFACE, frame
from tests.harness.model_server import ModelServer, StartServer, config_flag, floats, predict_request, wait_until

SOAK_S = float(os.environ.get("TENSORGATE_SOAK_S", "60"))
SWAP_S = min(30.0, SOAK_S / 8)
CLIENTS = 4  # of each protocol
PREDICT = "/tensorflow.serving.PredictionService/Predict"
# What may come of a request while its version goes and another comes, on a machine that may stand still for seconds.
MAX_RSS_GROWTH = 1.10
MAX_RSS_GROWTH_BYTES = 24 << 20


class Load:
    """Clients in threads; what they got is counted, what was wrong is kept."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server
        self._threads = [
            threading.Thread(target=client, args=(random.Random(number),))
            for number in range(CLIENTS)
            for client in (self._grpc_client, self._rest_client)
        ]
        self._is_over = threading.Event()
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self.wrong: list[str] = []

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _judge(self, what: str, is_right: bool, details: object) -> None:
        self._count(what)
        if not is_right:
            with self._lock:
                self.wrong.append(f"{what}: {details}"[:500])

    def _run(self, steps: dict[str, Callable[[random.Random], None]], chance: random.Random) -> None:
        names = list(steps)
        weights = [1 if name in ("garbage", "given up") else 98 / (len(names) - 2) for name in names]
        while not self._is_over.is_set():
            (name,) = chance.choices(names, weights)
            try:
                steps[name](chance)
            except Exception as error:  # noqa: BLE001 - whatever it is, the answer was wrong
                self._judge(name, False, repr(error))

    # --- gRPC ---------------------------------------------------------------------------------------------------------

    def _grpc_client(self, chance: random.Random) -> None:
        with grpc.insecure_channel(
            f"127.0.0.1:{self._server.port}", [("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            raw = channel.unary_unary(PREDICT)

            def half_plus(chance: random.Random) -> None:
                x = chance.uniform(-100, 100)
                answer = stub.Predict(predict_request("half_plus_two", x=floats(x)), timeout=60)
                expected = x * 0.5 + answer.model_spec.version.value
                self._judge("gRPC half_plus_two", abs(answer.outputs["y"].float_val[0] - expected) < 1e-3, (x, answer))

            def pair(chance: random.Random) -> None:
                a, b = float(chance.randrange(1000)), float(chance.randrange(1000))
                outputs = stub.Predict(predict_request("pair", a=floats(a), b=floats(b)), timeout=60).outputs
                got = outputs["sum"].float_val[0], outputs["product"].float_val[0]
                self._judge("gRPC pair", got == (a + b, a * b), (a, b, got))

            def echo(chance: random.Random) -> None:
                size = chance.choice((10, 3000, 200_000))
                request = predict_request("echo", x=TensorProto(dtype=types_pb2.DT_UINT8))
                request.model_spec.signature_name = "uint8"
                request.inputs["x"].tensor_content = chance.randbytes(size)
                request.inputs["x"].tensor_shape.dim.add(size=size)
                got = stub.Predict(request, timeout=60).outputs["y"]
                values = got.tensor_content or bytes(got.int_val)
                self._judge("gRPC echo", values == request.inputs["x"].tensor_content, size)

            def garbage(chance: random.Random) -> None:
                if chance.random() < 0.5:
                    _send_noise(self._server.port, PREFACE + frame(4) + frame(chance.randrange(12), 5, 1, b"\xff" * 20))
                    self._count("noise on a socket")
                    return
                message = bytearray(predict_request("pair", a=floats(1), b=floats(2)).SerializeToString())
                message[chance.randrange(len(message))] = chance.randrange(256)
                try:
                    raw(bytes(message), timeout=60)
                except grpc.RpcError as error:
                    is_right = error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                    self._judge("gRPC garbage", is_right, error)

            def given_up(chance: random.Random) -> None:
                rounds = TensorProto(dtype=types_pb2.DT_INT32, int_val=[30])
                call = stub.Predict.future(predict_request("slow", rounds=rounds), timeout=60)
                time.sleep(chance.uniform(0, 0.02))
                call.cancel()
                # It may have come to its end before.
                self._judge("gRPC given up", call.cancelled() or call.code() is grpc.StatusCode.OK, call)

            self._run(
                {"half_plus": half_plus, "pair": pair, "echo": echo, "garbage": garbage, "given up": given_up}, chance
            )

    # --- REST ---------------------------------------------------------------------------------------------------------

    def _rest_client(self, chance: random.Random) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.rest_port, timeout=60)

        def post(model: str, body: bytes) -> tuple[int, bytes]:
            connection.request("POST", f"/v1/models/{model}:predict", body)
            response = connection.getresponse()
            return response.status, response.read()

        def half_plus(chance: random.Random) -> None:
            x = float(chance.randrange(-1000, 1000))
            status, text = post("half_plus_two", json.dumps({"instances": [x, 0.0]}).encode())
            values = json.loads(text)["predictions"] if status == 200 else []
            is_right = status == 200 and values[1] in (1.0, 2.0) and values[0] == x * 0.5 + values[1]
            self._judge("REST half_plus_two", is_right, (status, text))

        def pair(chance: random.Random) -> None:
            a, b = float(chance.randrange(1000)), float(chance.randrange(1000))
            status, text = post("pair", json.dumps({"inputs": {"a": [a], "b": [b]}}).encode())
            expected = {"outputs": {"sum": [a + b], "product": [a * b]}}
            self._judge("REST pair", status == 200 and json.loads(text) == expected, (status, text))

        def garbage(chance: random.Random) -> None:
            if chance.random() < 0.5:
                _send_noise(self._server.rest_port, chance.randbytes(200))
                self._count("noise on a socket")
                return
            status, text = post("pair", chance.randbytes(chance.randrange(1, 300)))
            self._judge("REST garbage", 400 <= status < 500, (status, text))

        def given_up(chance: random.Random) -> None:
            body = b'{"inputs": 30}'
            head = f"POST /v1/models/slow:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            whole = head + body
            _send_noise(self._server.rest_port, whole[: chance.randrange(1, len(whole) + 1)], hears=False)
            self._count("REST given up")

        try:
            self._run({"half_plus": half_plus, "pair": pair, "garbage": garbage, "given up": given_up}, chance)
        finally:
            connection.close()


def _send_noise(port: int, data: bytes, hears: bool = True) -> None:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        if not hears:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while hears and connection.recv(1 << 16):
            pass


def figures(pid: int) -> tuple[int, int, int]:
    """A process' resident bytes, descriptors and threads."""
    resident = int(pathlib.Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return (
        resident * os.sysconf("SC_PAGE_SIZE"),
        len(os.listdir(f"/proc/{pid}/fd")),
        len(os.listdir(f"/proc/{pid}/task")),
    )


def swap(base_path: pathlib.Path, source: pathlib.Path) -> None:
    """Version 2 appears, whole at once, or goes."""
    second = base_path / "2"
    if second.exists():
        second.rename(base_path / "going")
        shutil.rmtree(base_path / "going")
    else:
        shutil.copytree(source, base_path / "coming")
        (base_path / "coming").rename(second)


@pytest.mark.timeout(SOAK_S * 2 + 300)
def test_under_mixed_load_answers_stay_right_and_nothing_grows(
    start_server: StartServer,
    saved_models: pathlib.Path,
    own_model: Callable[..., pathlib.Path],
    tmp_path: pathlib.Path,
) -> None:
    models = {name: saved_models / name for name in ("pair", "echo", "slow")}
    models["half_plus_two"] = own_model("half_plus_two", 1)
    server = start_server(config_flag(tmp_path, models), "--file_system_poll_wait_seconds=1")
    pids = {"gateway": server.process.pid, "worker": server.worker_pid}
    load = Load(server)
    load.start()
    samples: list[dict[str, tuple[int, int, int]]] = []
    num_swaps = 0
    try:
        began_s = time.monotonic()
        next_swap_s = began_s + SWAP_S
        while (now_s := time.monotonic()) < began_s + SOAK_S:
            samples.append({name: figures(pid) for name, pid in pids.items()})
            if now_s >= next_swap_s:
                swap(models["half_plus_two"], saved_models / "half_plus_two" / "2")
                num_swaps += 1
                next_swap_s += SWAP_S
            time.sleep(min(1.0, SOAK_S / 40))
    finally:
        load.stop()
    assert server.worker_pid == pids["worker"], "the worker was started anew"
    quarter = len(samples) // 4
    report = [
        f"{sum(load.counts.values())} requests in {SOAK_S:.0f} s, {num_swaps} version changes: {dict(load.counts)}"
    ]
    for name in pids:
        for place, what in enumerate(("resident", "descriptors", "threads")):
            early = statistics.median(each[name][place] for each in samples[quarter : 2 * quarter])
            late = statistics.median(each[name][place] for each in samples[-quarter:])
            report.append(f"{name} {what}: {early:.0f} → {late:.0f}")
            limit = max(early * MAX_RSS_GROWTH, early + MAX_RSS_GROWTH_BYTES) if place == 0 else early + 4
            assert late <= limit, "\n".join(report)
    print("\n".join(report))
    assert not load.wrong, "\n".join([f"{len(load.wrong)} wrong answers", *load.wrong[:10], *report])
    assert load.counts["gRPC half_plus_two"] > 0
    assert load.counts["REST half_plus_two"] > 0
    # All clients have gone, and so has what was kept for them.
    wait_until(lambda: figures(pids["gateway"])[1] <= samples[0]["gateway"][1], "as few descriptors as at first", 60)
