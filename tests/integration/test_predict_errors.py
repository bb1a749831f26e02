"""Every error a client can provoke has upstream's code and text, and the server goes on as if nothing had been."""

import struct
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorgate.protos.tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest
from tests.harness.model_server import ModelServer, StartServer, floats, predict_request

PREDICT = "/tensorflow.serving.PredictionService/Predict"


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code(), error.value.details()


def raw_call(server: ModelServer, method: str, message: bytes, timeout_s: float = 30) -> bytes:
    """One unary call with bytes as they are."""
    return bytes(server.channel.unary_unary(method)(message, timeout=timeout_s))


def test_every_client_error_has_its_code_and_text_and_kills_nothing(
    start_server: StartServer, model_config: Callable[..., str]
) -> None:
    server = start_server(model_config("half_plus_two", "pair", "echo", "slow"))
    worker = server.worker_pid
    predict = server.prediction.Predict
    code = grpc.StatusCode
    good = predict_request("half_plus_two", x=floats(1))

    def with_signature(name: str) -> PredictRequest:
        request = predict_request("half_plus_two", x=floats(1))
        request.model_spec.signature_name = name
        return request

    broken = floats(1)
    broken.tensor_content = b"123"
    doubles = TensorProto(dtype=types_pb2.DT_DOUBLE, double_val=[1])
    expected: list[tuple[PredictRequest, grpc.StatusCode, str]] = [
        (PredictRequest(), code.INVALID_ARGUMENT, "Missing ModelSpec"),
        (predict_request("", 1, x=floats(1)), code.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        (predict_request("nope", x=floats(1)), code.NOT_FOUND, "Servable not found for request: Latest(nope)"),
        (
            predict_request("half_plus_two", 0, x=floats(1)),
            code.NOT_FOUND,
            "Servable not found for request: Specific(half_plus_two, 0)",
        ),
        (with_signature("nope"), code.FAILED_PRECONDITION, 'Serving signature key "nope" not found.'),
        (
            with_signature("s" * 2000),
            code.FAILED_PRECONDITION,
            ('Serving signature key "' + "s" * 2000)[:1024] + "...TRUNCATED",
        ),
        (
            predict_request("pair", a=floats(1)),
            code.INVALID_ARGUMENT,
            "input size does not match signature: 1!=2 len({a}) != len({a,b})."
            " Sent extra: {}. Missing but required: {b}.",
        ),
        (
            predict_request("half_plus_two", y=floats(1)),
            code.INVALID_ARGUMENT,
            "Signature input alias: x(feed name: x:0) not found in request and no default value provided."
            " Inputs expected to be in the request {y}, or default input alias set: ",
        ),
        (
            predict_request("half_plus_two", x=doubles),
            code.INVALID_ARGUMENT,
            "Expects arg[0] to be float but double is provided",
        ),
        (predict_request("half_plus_two", x=broken), code.INVALID_ARGUMENT, "tensor parsing error: x"),
    ]
    for request, want_code, want_text in expected:
        assert refused(lambda request=request: predict(request, timeout=30)) == (want_code, want_text)

    label = predict_request("half_plus_two", x=floats(1))
    label.model_spec.version_label = "gold"
    want = (code.INVALID_ARGUMENT, "Unrecognized servable version label: gold")
    assert refused(lambda: predict(label, timeout=30)) == want

    shapes = refused(lambda: predict(predict_request("pair", a=floats(1, 2), b=floats(1, 2, 3)), timeout=30))
    assert shapes[0] is code.INVALID_ARGUMENT
    assert "Incompatible shapes" in shapes[1]

    # Bytes that are no message: outside, inside the model_spec, inside a tensor, and cut short.
    message = good.SerializeToString()
    for garbage in (b"\xff\xff\xff", b"\x0a\x03\x0a\x01\xff", message[:-1], message + b"\x12\x02\x0a\x05"):
        assert refused(lambda garbage=garbage: raw_call(server, PREDICT, garbage)) == (code.INTERNAL, "")
    assert refused(lambda: raw_call(server, "/tensorflow.serving.PredictionService/Nope", b"")) == (
        code.UNIMPLEMENTED,
        "",
    )
    assert refused(lambda: raw_call(server, "/no.such.Service/Predict", b""))[0] is code.UNIMPLEMENTED

    status = GetModelStatusRequest()
    status.model_spec.name = "nope"
    assert refused(lambda: server.model_service.GetModelStatus(status, timeout=30)) == (
        code.NOT_FOUND,
        "Could not find any versions of model nope",
    )

    assert list(predict(good, timeout=30).outputs["y"].float_val) == [2.5]
    assert server.worker_pid == worker


def test_a_deadline_ends_the_wait_and_the_work(start_server: StartServer, model_config: Callable[..., str]) -> None:
    server = start_server(model_config("slow", "half_plus_two"))
    endless = predict_request("slow", rounds=TensorProto(dtype=types_pb2.DT_INT32, int_val=[10**8]))
    began = time.monotonic()
    calls = [server.prediction.Predict.future(endless, timeout=0.7) for _ in range(8)]
    assert {call.exception().code() for call in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert time.monotonic() - began < 5
    # Nothing of it is left running, so what comes next is served at once.
    quick = predict_request("half_plus_two", x=floats(1))
    began = time.monotonic()
    assert list(server.prediction.Predict(quick, timeout=30).outputs["y"].float_val) == [2.5]
    assert time.monotonic() - began < 2


def test_a_message_over_the_limit_is_refused_and_the_limit_can_be_set(
    start_server: StartServer, model_config: Callable[..., str]
) -> None:
    server = start_server(
        model_config("half_plus_two"), "--grpc_channel_arguments=grpc.max_receive_message_length=100000"
    )
    large = predict_request("half_plus_two", x=floats(*[1.0] * 50_000))
    assert refused(lambda: server.prediction.Predict(large, timeout=30))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    small = predict_request("half_plus_two", x=floats(1))
    assert list(server.prediction.Predict(small, timeout=30).outputs["y"].float_val) == [2.5]


def test_large_tensors_go_both_ways(start_server: StartServer, model_config: Callable[..., str]) -> None:
    server = start_server(model_config("echo"))
    count = 5_000_000
    tensor = TensorProto(dtype=types_pb2.DT_FLOAT, tensor_content=struct.pack("<f", 1.5) * count)
    tensor.tensor_shape.dim.add(size=count)
    request = predict_request("echo", x=tensor)
    request.model_spec.signature_name = "float32"
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=unlimited) as channel:
        response = channel.unary_unary(PREDICT)(request.SerializeToString(), timeout=60)
    assert response.count(struct.pack("<f", 1.5)) >= count


def test_a_model_that_cannot_be_loaded_fails_the_start_as_upstream(
    start_server: StartServer, own_model: Callable[..., Any]
) -> None:
    for name, text in (
        ("corrupt", "{name: corrupt version: 1} due to error: "),
        ("empty", "does not appear to contain a SavedModel bundle"),
    ):
        base_path = own_model(name, 1)
        server = start_server(
            f"--model_name={name}", f"--model_base_path={base_path}", "--max_num_load_retries=0", wait=False
        )
        assert server.process.wait(60) == 255
        assert "Failed to start server. Error: UNKNOWN: 1 servable(s) did not become available: {{name: " in server.log
        assert text in server.log


def test_a_corrupt_new_version_leaves_the_serving_one_alone(
    start_server: StartServer, own_model: Callable[..., Any], saved_models: Any
) -> None:
    base_path = own_model("half_plus_two", 1)
    server = start_server(f"--model_base_path={base_path}", "--model_name=m", "--max_num_load_retries=0")
    subprocess.run(["cp", "-r", str(saved_models / "corrupt" / "1"), str(base_path / "7")], check=True)
    status = GetModelStatusRequest()
    status.model_spec.name = "m"

    def states() -> dict[int, tuple[int, int]]:
        answer = server.model_service.GetModelStatus(status, timeout=30)
        return {each.version: (each.state, each.status.error_code) for each in answer.model_version_status}

    deadline = time.monotonic() + 30
    while 7 not in states() or states()[7][0] != 50:
        assert time.monotonic() < deadline, states()
        time.sleep(0.1)
    assert states()[7][1] != 0
    assert states()[1] == (30, 0)
    assert list(server.prediction.Predict(predict_request("m", x=floats(1)), timeout=30).outputs["y"].float_val) == [
        1.5
    ]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (["--port=0"], "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set."),
        (["--model_config_file=/no/such/file"], "NOT_FOUND: /no/such/file"),
        (["--model_base_path=/m", "--run_dir=/no/such"], "--run_dir=/no/such is no folder; make it first"),
    ],
)
def test_flags_that_make_no_server_say_so_and_exit_255(flags: list[str], text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tensorgate.gateway.main", *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 255
    assert text in done.stdout


def test_a_port_that_is_taken_is_named(start_server: StartServer, model_config: Callable[..., str]) -> None:
    config = model_config("half_plus_two")
    first = start_server(config)
    second = start_server(config, f"--port={first.port}", wait=False)
    assert second.process.wait(60) == 255
    assert f"gRPC cannot listen on 0.0.0.0:{first.port}: Address already in use; choose another --port" in second.log
    # Before anything is loaded.
    assert "worker-0 started" not in second.log
