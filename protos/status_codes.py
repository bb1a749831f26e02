"""Canonical status codes and the one exception that carries them.

Stands on both lines of both processes: the worker makes codes from TensorFlow's statuses, the gateway's edges map
them to gRPC and HTTP. Exceptions never cross a process; a code and a message do.

Source: the canonical codes of google/rpc/code.proto, which tensorflow.error.Code and grpc.StatusCode share.
"""

import errno
import os
from enum import IntEnum


class Code(IntEnum):
    """A canonical status code; the numbers are those on the wire."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def of(cls, number: int) -> "Code":
        """The code with this number; UNKNOWN for a number that is none of them."""
        try:
            return cls(number)
        except ValueError:
            return cls.UNKNOWN


class ServingError(Exception):
    """A failure a client may see: a canonical code and a message that names the thing, the value and the remedy.

    It is the root of the tree; there are no subclasses, since a code says all that a caller acts on.
    """

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """The text form in which TensorFlow Serving embeds one status in another: ``CODE_NAME: message``."""
        return f"{self.code.name}: {self.message}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServingError) and (self.code, self.message) == (other.code, other.message)

    def __hash__(self) -> int:
        return hash((self.code, self.message))


_FILE_ERROR_CODES = {
    errno.ENOENT: Code.NOT_FOUND,
    errno.ENOTDIR: Code.FAILED_PRECONDITION,
    errno.EISDIR: Code.FAILED_PRECONDITION,
    errno.EACCES: Code.PERMISSION_DENIED,
    errno.EPERM: Code.PERMISSION_DENIED,
}


def of_os_error(error: OSError, path: str) -> ServingError:
    """The file system's error as TensorFlow tells it: ``path; No such file or directory``."""
    number = error.errno or 0
    return ServingError(_FILE_ERROR_CODES.get(number, Code.UNKNOWN), f"{path}; {os.strerror(number)}")
