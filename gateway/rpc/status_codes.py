"""The one table from canonical codes to gRPC's, and the form of an error's text over gRPC.

At the gRPC edge, where a ServingError leaves the process; pure functions, any thread.

Source: tensorflow_serving/model_servers/grpc_status_util.cc.
"""

import grpc

from tensorgate.protos.status_codes import Code

GRPC_STATUS_CODES: dict[Code, grpc.StatusCode] = {code: grpc.StatusCode[code.name] for code in Code}

# Longer texts do not fit the 8 KiB of metadata that many clients accept, once percent-encoded.
MAX_MESSAGE_BYTES = 1024
TRUNCATION_MARK = "...TRUNCATED"


def truncated_message(message: str) -> str:
    """``message``, cut to 1024 bytes of UTF-8 and marked if it was longer; a character is not cut in half."""
    encoded = message.encode("utf-8", "replace")
    if len(encoded) <= MAX_MESSAGE_BYTES:
        return message
    return encoded[:MAX_MESSAGE_BYTES].decode("utf-8", "ignore") + TRUNCATION_MARK
