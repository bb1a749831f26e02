"""Reads the files that operators write: protobuf messages in text form.

At the head of a version's line, under the modules that give each file its meaning. Blocks on the file system.

Source: tensorflow_serving/util/proto_util.h (ParseProtoTextFile), model_servers/server.cc (the error's text).
"""

from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from tensorgate.protos.status_codes import Code, ServingError, of_os_error

_Message = TypeVar("_Message", bound=Message)


def read_text_proto(path: str, kind: type[_Message]) -> _Message:
    """The message in the file ``path``.

    Raises ServingError: INVALID_ARGUMENT with line and column, in upstream's words, where the text is no such message;
    the code of the file system's error where the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise of_os_error(error, path) from error
    message = kind()
    try:
        text_format.Parse(text.decode(), message)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"Invalid protobuf file: '{path}': {error}") from error
    return message
