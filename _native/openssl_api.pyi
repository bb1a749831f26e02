SYSTEM_LIBRARIES: tuple[str, ...]

def load_library() -> str:
    """OpenSSL's version. Opens the library the first time; raises LibraryError if that fails."""
