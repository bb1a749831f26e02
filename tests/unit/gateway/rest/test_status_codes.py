"""The table from canonical codes to HTTP."""

import pytest

from tensorgate.gateway.rest.status_codes import http_status
from tensorgate.protos.status_codes import Code


@pytest.mark.parametrize("code", list(Code))
def test_every_code_has_an_http_status(code: Code) -> None:
    assert 200 <= http_status(code) < 600


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.OK, 200),
        (Code.CANCELLED, 499),
        (Code.INVALID_ARGUMENT, 400),
        (Code.FAILED_PRECONDITION, 400),
        (Code.NOT_FOUND, 404),
        (Code.DEADLINE_EXCEEDED, 504),
        (Code.RESOURCE_EXHAUSTED, 429),
        (Code.UNIMPLEMENTED, 501),
        (Code.UNAVAILABLE, 503),
        (Code.INTERNAL, 500),
    ],
)
def test_clients_see_the_number_they_expect(code: Code, status: int) -> None:
    assert http_status(code) == status
