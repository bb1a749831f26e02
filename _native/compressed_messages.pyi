from typing_extensions import Buffer

class GzipError(ValueError): ...
class InflatedTooLargeError(GzipError): ...

def is_available() -> bool:
    """Whether zlib is loaded (zlib_api.load_library); without it the edge refuses compressed messages."""

def inflate(message: Buffer, max_size: int, is_gzip: bool = True) -> bytes:
    """The message that one gzip member, or else zlib stream, holds; no bytes hold an empty one. Loads zlib.

    Raises InflatedTooLargeError beyond ``max_size`` bytes, GzipError for anything broken or followed by more bytes,
    shared_library.LibraryError.
    """

def deflate(message: Buffer) -> bytes | None:
    """The message as gzip; None when that is not smaller. Loads zlib; raises shared_library.LibraryError."""
