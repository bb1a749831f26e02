SYSTEM_LIBRARIES: tuple[str, ...]

class LibraryError(RuntimeError):
    """There is no OpenSSL, or it lacks what the edge needs."""

def load_library() -> str:
    """OpenSSL's version. Opens the library the first time; raises LibraryError if that fails."""
