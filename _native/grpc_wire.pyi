IDENTITY: int
GZIP: int
DEFLATE: int

def timeout_us(value: bytes) -> int | None:
    """The value of grpc-timeout in microseconds, rounded up; None when it is malformed."""

def grpc_message(message: bytes) -> bytes:
    """The value of grpc-message for a status message in UTF-8: cut at 1,024 bytes, marked if cut, percent-encoded."""

def percent_encoded(message: bytes) -> bytes:
    """The whole message as grpc-message encodes it."""

def content_type_is_grpc(value: bytes) -> bool: ...
def encoding(value: bytes) -> int:
    """The encoding that grpc-encoding names: IDENTITY, GZIP, or 0 for one that is not known."""

def encodings(value: bytes) -> int:
    """The set of encodings that grpc-accept-encoding allows, as a sum; IDENTITY is always in it."""

def bin_header(value: bytes) -> bytes | None:
    """What one value of -bin metadata stands for, its base64 padded or not; None when it is malformed."""

def base64_unpadded(value: bytes) -> bytes: ...
