"""The one table that turns canonical status codes into HTTP status numbers.

Stands at the end of the REST line, where a ServingError becomes an answer; nothing behind the edge knows HTTP numbers.
Pure data, any thread. Source: TensorFlow Serving's util/net_http mapping of absl status codes.
"""

from http import HTTPStatus
from types import MappingProxyType

from tensorgate.protos.status_codes import Code

# 499 has no name in the HTTP standard: it is what proxies write when the client has gone.
CLIENT_CLOSED_REQUEST = 499

HTTP_STATUS_OF_CODE = MappingProxyType(
    {
        Code.OK: HTTPStatus.OK.value,
        Code.CANCELLED: CLIENT_CLOSED_REQUEST,
        Code.UNKNOWN: HTTPStatus.INTERNAL_SERVER_ERROR.value,
        Code.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST.value,
        Code.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT.value,
        Code.NOT_FOUND: HTTPStatus.NOT_FOUND.value,
        Code.ALREADY_EXISTS: HTTPStatus.CONFLICT.value,
        Code.PERMISSION_DENIED: HTTPStatus.FORBIDDEN.value,
        Code.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS.value,
        Code.FAILED_PRECONDITION: HTTPStatus.BAD_REQUEST.value,
        Code.ABORTED: HTTPStatus.CONFLICT.value,
        Code.OUT_OF_RANGE: HTTPStatus.BAD_REQUEST.value,
        Code.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED.value,
        Code.INTERNAL: HTTPStatus.INTERNAL_SERVER_ERROR.value,
        Code.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE.value,
        Code.DATA_LOSS: HTTPStatus.INTERNAL_SERVER_ERROR.value,
        Code.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED.value,
    }
)


def http_status(code: Code) -> int:
    """The HTTP status number of a canonical code."""
    return HTTP_STATUS_OF_CODE[code]
