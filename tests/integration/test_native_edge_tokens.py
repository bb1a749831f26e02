"""Tokens at the native gRPC edge, frame by frame: what is refused, when, and what changes under way."""

import pathlib
import threading
from collections.abc import Iterator

import pytest

from tensorgate._native import nghttp2_api
from tensorgate._native.access_tokens import AccessTokens
from tensorgate.protos.status_codes import Code
from tests.harness.native_grpc import ADMIN, HANDLED, PREDICT, PREDICTS, RawClient, Scene, predict_request, scene

PREDICT_TOKEN, ADMIN_TOKEN = "predict-0123456789", "admin-0123456789"


def table(*tokens: tuple[str, int]) -> AccessTokens:
    return AccessTokens([(token.encode(), roles) for token, roles in tokens])


@pytest.fixture(params=[1, 2])
def served(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Scene]:
    try:
        nghttp2_api.load_library()
    except nghttp2_api.LibraryError as error:
        pytest.skip(f"the native gRPC edge cannot run here: {error}")
    with scene(tmp_path, request.param) as made:
        made.edge.set_tokens(table((PREDICT_TOKEN, PREDICTS), (ADMIN_TOKEN, ADMIN)))
        yield made


def shown(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_each_method_takes_the_tokens_of_its_role(served: Scene) -> None:
    codes = {}
    with RawClient(served.port) as client:
        for path in (PREDICT, HANDLED):
            for headers in ({}, shown("nobody"), shown(PREDICT_TOKEN), shown(ADMIN_TOKEN)):
                codes[path, headers.get("authorization", "")[7:14]] = client.ask(
                    predict_request(), path, headers
                ).status[0]
    assert codes == {
        (PREDICT, ""): Code.UNAUTHENTICATED,
        (PREDICT, "nobody"): Code.UNAUTHENTICATED,
        (PREDICT, "predict"): Code.OK,
        (PREDICT, "admin-0"): Code.PERMISSION_DENIED,
        (HANDLED, ""): Code.UNAUTHENTICATED,
        (HANDLED, "nobody"): Code.UNAUTHENTICATED,
        (HANDLED, "predict"): Code.PERMISSION_DENIED,
        (HANDLED, "admin-0"): Code.OK,
    }
    # Python has heard of the one that was let in, and not of its token.
    assert len(served.started) == 1
    assert b"authorization" not in dict(served.started[0].metadata)


def test_a_call_is_refused_before_its_message_has_come(served: Scene) -> None:
    with RawClient(served.port) as client:
        stream_id = client.start(PREDICT, shown("nobody"))
        assert client.finish(stream_id).status[0] == Code.UNAUTHENTICATED


def test_tokens_change_while_calls_are_made_and_each_is_judged_by_the_old_ones_or_the_new(served: Scene) -> None:
    codes: set[int] = set()
    stops = threading.Event()

    def call() -> None:
        with RawClient(served.port) as client:
            while not stops.is_set():
                codes.add(client.ask(predict_request(), PREDICT, shown(PREDICT_TOKEN)).status[0])

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(200):
        served.edge.set_tokens(table((f"other-{number}", PREDICTS), *[(PREDICT_TOKEN, PREDICTS)] * (number % 2)))
    stops.set()
    for thread in threads:
        thread.join()
    assert codes <= {Code.OK, Code.UNAUTHENTICATED}
    served.edge.set_tokens(table(("last", PREDICTS)))
    with RawClient(served.port) as client:
        assert client.ask(predict_request(), PREDICT, shown(PREDICT_TOKEN)).status[0] == Code.UNAUTHENTICATED
        assert client.ask(predict_request(), PREDICT, shown("last")).status[0] == Code.OK
