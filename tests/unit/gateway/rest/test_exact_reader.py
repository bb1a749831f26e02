"""Reading large JSON in another process: the same as here, whatever becomes of the process."""

import asyncio
import contextlib
import logging
import pathlib
from collections.abc import Callable, Iterator

import pytest

from tensorgate.gateway.rest import exact_process, exact_reader
from tensorgate.gateway.rest.exact_process import ExactWork
from tensorgate.gateway.rest.exact_reader import ExactReader
from tensorgate.gateway.rest.inference_request import parse_inference_request
from tensorgate.gateway.rest.predict_request import RequestDocument, build_exactly, parse_request
from tensorgate.protos.status_codes import Code, ServingError
from tensorgate.protos.tensorflow.core.framework import types_pb2
from tensorgate.protos.tensorflow_serving.apis.classification_pb2 import ClassificationRequest
from tests.harness.model_server import process_exists, wait_until

DTYPES = {"x": int(types_pb2.DT_FLOAT)}
SPEC = b"\n\x01m"
# Seconds of work.
LONG = b'{"instances": [' + b"1.5, " * 2_000_000 + b"}"


@pytest.fixture
def reader() -> Iterator[ExactReader]:
    with contextlib.closing(ExactReader()) as made:
        yield made


def children() -> set[int]:
    found = set()
    for task in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found |= {int(pid) for pid in (task / "children").read_text(encoding="ascii").split()}
    return found


def outcome(read: Callable[[], object]) -> object:
    """What comes out, be it an error."""
    try:
        return read()
    except ServingError as error:
        return error.code, error.message


async def until_busy(reader: ExactReader) -> None:
    await asyncio.to_thread(wait_until, lambda: bool(reader._busy), "a process works")


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [1.0, 2.5, NaN, -Infinity]}',
        b'{"inputs": {"x": [[1], [2]]}, "signature_name": "s\\u00e9"}',
        b'{"instances": [1.0, null]}',
        b'{"instances": [1.0, "\xff"]}',
        b'{"instances": [1.0, 2.0}',
        b'{"signature_name": "\xff", "instances": [1.0]}',
        b'{"signature_name": 3}',
        b"",
        b"[" * 5000,
    ],
)
def test_it_says_what_is_said_here(reader: ExactReader, body: bytes) -> None:
    async def there() -> tuple[str, bytes, object]:
        name = await reader.signature_name(body)
        return (name, *await reader.predict_request(body, DTYPES, SPEC))

    def here() -> tuple[str, bytes, object]:
        document = parse_request(body)
        return (document.signature_name, *build_exactly(document, DTYPES, SPEC))

    assert outcome(lambda: asyncio.run(there())) == outcome(here)


def test_examples_come_back_as_they_are_read_here(reader: ExactReader) -> None:
    body = b'{"signature_name": "s", "context": {"c": 1}, "examples": [{"x": 1.0, "t": "\xff"}, {}]}'
    there, here = asyncio.run(reader.inference_document(body)), parse_inference_request(body)
    assert there.signature_name == here.signature_name
    # Maps have no order, so the bytes may differ.
    there_read, here_read = map(ClassificationRequest.FromString, (there.request, here.request))
    assert there_read == here_read
    assert len(here_read.input.example_list_with_context.examples) == 2


def test_what_was_read_for_its_signature_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def parse(body: bytes) -> RequestDocument:
        read.append(body)
        return parse_request(body)

    monkeypatch.setattr(exact_process, "parse_request", parse)
    work = ExactWork()
    predict = {"asked": "predict", "dtypes": DTYPES, "model_spec": SPEC}
    bodies = b'{"instances": [1.5]}', b'{"instances": [2.5]}'
    work.answer({"asked": "signature"}, bodies[0])
    for body in (bodies[0], bodies[0]):
        assert work.answer(predict, body)[1] == build_exactly(parse_request(body), DTYPES, SPEC)[0]
    assert read == [bodies[0], bodies[0]]
    work.answer({"asked": "signature"}, bodies[0])
    assert work.answer(predict, bodies[1])[1] == build_exactly(parse_request(bodies[1]), DTYPES, SPEC)[0]
    assert read[2:] == list(bodies)


def test_one_process_answers_one_body_after_the_other(reader: ExactReader) -> None:
    before = children()
    asyncio.run(reader.signature_name(b"{}"))
    (process,) = children() - before
    asyncio.run(reader.signature_name(b"{}"))
    assert children() - before == {process}
    reader.close()
    assert not process_exists(process)


def test_a_process_that_has_ended_while_idle_is_replaced(reader: ExactReader) -> None:
    asyncio.run(reader.signature_name(b"{}"))
    (idle,) = reader._idle
    idle.kill()
    assert asyncio.run(reader.signature_name(b'{"signature_name": "s"}')) == "s"


def test_a_process_that_ends_at_its_work_fails_that_request_and_no_other(reader: ExactReader) -> None:
    async def run() -> ServingError:
        asking = asyncio.ensure_future(reader.signature_name(LONG))
        await until_busy(reader)
        with reader._lock:
            (busy,) = reader._busy
        busy.kill()
        with pytest.raises(ServingError) as caught:
            await asking
        assert await reader.signature_name(b"{}") == ""
        return caught.value

    error = asyncio.run(run())
    assert (error.code, error.message) == (
        Code.RESOURCE_EXHAUSTED,
        "The process that read the request's JSON ended before it was done.",
    )


def test_a_client_that_goes_away_ends_the_work_for_it(reader: ExactReader) -> None:
    before = children()

    async def run() -> None:
        asking = asyncio.ensure_future(reader.signature_name(LONG))
        await until_busy(reader)
        asking.cancel()
        await asyncio.wait([asking])

    asyncio.run(run())
    wait_until(lambda: not reader._busy and children() == before, "its process has ended")


def test_closing_ends_what_is_under_way() -> None:
    reader = ExactReader()

    async def run() -> None:
        asking = asyncio.ensure_future(reader.signature_name(LONG))
        await until_busy(reader)
        reader.close()
        with pytest.raises(ServingError):
            await asking

    asyncio.run(run())


@pytest.mark.parametrize("command", [("/no/such/program",), ("/bin/false",)])
def test_where_no_process_can_be_started_the_work_is_done_here(
    reader: ExactReader,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    command: tuple[str, ...],
) -> None:
    monkeypatch.setattr(exact_reader, "python_command", lambda _module: command)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert asyncio.run(reader.signature_name(b'{"signature_name": "s"}')) == "s"
    assert len(caplog.records) == 1
    assert "no process for large JSON can be started" in caplog.text
