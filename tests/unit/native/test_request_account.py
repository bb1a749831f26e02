"""What native threads keep of requests that have ended: counts by version, sampled records, requests to be logged."""

import pathlib
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
import zmq

from tensorgate._native.completion_queue import CompletionQueue
from tensorgate._native.data_plane import DataPlane
from tensorgate._native.request_stats import LATENCY_LIMITS_US, OTHER_SIGNATURES, ROW_LIMITS
from tensorgate._native.route_table import PublishedVersion, Routes
from tensorgate.protos.status_codes import Code
from tensorgate.protos.tensorflow_serving.apis.inference_pb2 import InferenceTask, MultiInferenceRequest
from tensorgate.protos.tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorgate.protos.tensorflow_serving.apis.predict_pb2 import PredictRequest
from tests.fakes.fake_worker import Endpoints, FakeWorker

PREDICT = 1
MULTI_INFERENCE = 4
NUM_SIGNATURES = 32
HANDLE = 5
TRACED = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NOT_TRACED = TRACED[:-1] + b"0"


class Scene:
    """A plane with one model on one echoing worker; requests go through one queue."""

    def __init__(self, folder: pathlib.Path, signatures: Sequence[str]) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        addresses = [f"ipc://{folder}/{role}" for role in ("data", "control", "cancel")]
        self.worker = FakeWorker(self.context, Endpoints(*addresses), 3)
        self.worker.handles.add(HANDLE)
        self.thread = threading.Thread(target=self.worker.run)
        self.thread.start()
        self.plane = DataPlane(2)
        self.plane.add_line(1, 3, "worker-1", addresses[0], addresses[2], 100, 10_000, 1 << 30)
        self.version = PublishedVersion("m", 7, signatures)
        self.plane.set_replicas(self.version, [(1, HANDLE)])
        self.plane.publish(Routes({"m": ([self.version], {})}))
        self.queue = CompletionQueue(self.plane)

    def run(
        self, *payloads: bytes, method: int = PREDICT, traceparent: bytes = b"", deadline_us: int = -1
    ) -> list[int]:
        """The codes of requests that are all under way together."""
        for payload in payloads:
            assert self.version.try_pin()
            self.queue.submit(payload, self.version, method, payload, traceparent=traceparent, deadline_us=deadline_us)
        codes: list[int] = []
        deadline_s = time.monotonic() + 20
        while len(codes) < len(payloads):
            assert time.monotonic() < deadline_s, f"{len(codes)} of {len(payloads)} outcomes"
            select.select([self.queue.event_fd], [], [], 1)
            codes += [code for _, code, *_ in self.queue.drain()]
        return codes

    def close(self) -> None:
        self.plane.close()
        self.worker.stop()
        self.thread.join()
        self.worker.close()
        self.context.term()


@pytest.fixture
def make_scene(tmp_path: pathlib.Path) -> Iterator[Callable[..., Scene]]:
    made: list[Scene] = []

    def make(share: float | None = None, *, traces: bool = False, signatures: Sequence[str] = ()) -> Scene:
        scene = Scene(tmp_path, signatures)
        made.append(scene)
        if share is not None:
            scene.plane.sample_requests(share, traces)
        scene.plane.start()
        return scene

    yield make
    for scene in made:
        scene.close()


def test_requests_are_counted_by_version_method_and_code(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene()
    assert scene.plane.request_stats() == ([("m", 7, [])], [])
    scene.run(*[b"echo"] * 50)
    scene.run(b"echo", deadline_us=0)
    present, retired = scene.plane.request_stats()
    assert retired == []
    ((name, version, (counted,)),) = present
    assert (name, version) == ("m", 7)
    signature, entrypoint, method, by_code, total, queue, run, rows, padding_rows, request_bytes, reply_bytes = counted
    assert (signature, entrypoint, method) == (OTHER_SIGNATURES, 0, PREDICT)
    assert by_code[Code.OK] == 50
    assert by_code[Code.DEADLINE_EXCEEDED] == 1
    assert sum(by_code) == 51
    for buckets, sum_us in (total, queue, run):
        assert len(buckets) == len(LATENCY_LIMITS_US) + 1
        assert sum(buckets) == 50
        least = sum(number * limit for number, limit in zip(buckets, (0, *LATENCY_LIMITS_US), strict=True))
        assert least - 50 <= sum_us
    assert len(rows[0]) == len(ROW_LIMITS) + 1
    assert (request_bytes, reply_bytes) == (200, 200)
    assert padding_rows >= 0


def counts_by_signature(scene: Scene) -> dict[tuple[str, int], int]:
    """(signature, method) to requests."""
    ((_, _, methods),), _ = scene.plane.request_stats()
    return {(signature, method): sum(by_code) for signature, _, method, by_code, *_ in methods}


def test_requests_are_counted_by_the_signature_that_they_name(make_scene: Callable[..., Scene]) -> None:
    def request(signature: str) -> bytes:
        return PredictRequest(model_spec=ModelSpec(name="m", signature_name=signature)).SerializeToString()

    scene = make_scene(signatures=("b", "serving_default", "a"))
    scene.run(request("a"), request(""), request("serving_default"), request("b"), request("a"))
    scene.run(request("nobody's"), request("aa"), b"no message", deadline_us=0)
    task = InferenceTask(model_spec=ModelSpec(name="m", signature_name="b"))
    scene.run(MultiInferenceRequest(tasks=[task]).SerializeToString(), method=MULTI_INFERENCE)
    assert counts_by_signature(scene) == {
        ("serving_default", PREDICT): 2,
        ("a", PREDICT): 2,
        ("b", PREDICT): 1,
        ("b", MULTI_INFERENCE): 1,
        (OTHER_SIGNATURES, PREDICT): 3,
    }


def test_signatures_of_which_there_are_too_many_are_counted_as_one(make_scene: Callable[..., Scene]) -> None:
    names = [f"s{number:02}" for number in range(40)]
    scene = make_scene(signatures=(*names, "serving_default"))
    for name in (*names, "serving_default"):
        scene.run(PredictRequest(model_spec=ModelSpec(signature_name=name)).SerializeToString())
    counts = counts_by_signature(scene)
    assert len(counts) == NUM_SIGNATURES
    assert counts.pop((OTHER_SIGNATURES, PREDICT)) == len(names) + 1 - (NUM_SIGNATURES - 1)
    assert set(counts.values()) == {1}
    assert ("serving_default", PREDICT) in counts


def test_counts_of_a_version_that_goes_are_told_once_more(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene()
    scene.run(b"echo")
    scene.plane.publish(Routes({}))
    scene.version.close()
    scene.plane.forget(scene.version)
    present, retired = scene.plane.request_stats()
    assert present == []
    assert [(name, version, methods[0][3][Code.OK]) for name, version, methods in retired] == [("m", 7, 1)]
    assert scene.plane.request_stats() == ([], [])


def test_all_are_recorded_with_what_they_took(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(1.0)
    before_us = time.monotonic_ns() // 1000
    scene.run(b"echo", traceparent=TRACED)
    scene.run(b"echo", deadline_us=0)
    (first, second), dropped = scene.plane.take_records()
    assert dropped == 0
    ended_us, name, version, method, request_id, code, is_native, is_sampled, total_us, *_ = first
    assert (name, version, method, code, is_native, is_sampled) == ("m", 7, PREDICT, Code.OK, False, True)
    assert request_id > 0
    assert 0 <= total_us <= ended_us - before_us
    assert first[-3:] == (4, 4, TRACED.decode())
    assert second[5] == Code.DEADLINE_EXCEEDED
    assert second[-1] == ""
    assert scene.plane.take_records() == ([], 0)


def test_a_share_is_recorded_and_nothing_without_being_asked(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(0.25)
    for _ in range(10):
        scene.run(*[b"echo"] * 100)
    records, dropped = scene.plane.take_records()
    assert dropped == 0
    # 250 on average; nearer than 8 standard deviations.
    assert 140 < len(records) < 360


def test_a_ring_that_nobody_reads_drops_and_counts(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(1.0)
    for _ in range(30):
        scene.run(*[b"echo"] * 100)
    records, dropped = scene.plane.take_records()
    assert len(records) + dropped == 3000
    assert len(records) == 2048
    scene.run(b"echo")
    records, dropped = scene.plane.take_records()
    assert (len(records), dropped) == (1, 952)


def test_what_its_client_traces_is_recorded_whatever_the_share(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene(0.0, traces=True)
    for traceparent in (TRACED, NOT_TRACED, b"", TRACED[:-1] + b"b", TRACED[:-1] + b"a", b"01"):
        scene.run(b"echo", traceparent=traceparent)
    records, _ = scene.plane.take_records()
    assert [(record[-1], record[7]) for record in records] == [
        (TRACED.decode(), False),
        (TRACED.decode()[:-1] + "b", False),
    ]


def test_requests_that_a_version_logs_are_kept_whole(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene()
    scene.run(b"before")
    scene.version.log_requests(1.0)
    large = bytes(range(256)) * 1000
    scene.run(b"small")
    scene.run(large)
    scene.run(b"late", deadline_us=0)
    scene.version.log_requests(0.0)
    scene.run(b"after")
    logged, dropped = scene.plane.take_logged()
    assert [entry[1:] for entry in logged] == [
        ("m", 7, PREDICT, b"small", b"small"),
        ("m", 7, PREDICT, large, large),
    ]
    assert dropped == 0
    assert scene.plane.take_logged() == ([], 0)


def test_what_is_logged_and_never_read_does_not_fill_the_memory(make_scene: Callable[..., Scene]) -> None:
    scene = make_scene()
    scene.version.log_requests(1.0)
    large = bytes(4 << 20)
    for _ in range(12):
        scene.run(large)
    logged, dropped = scene.plane.take_logged()
    # 64 MiB, and each entry has 8.
    assert (len(logged), dropped) == (7, 5)
