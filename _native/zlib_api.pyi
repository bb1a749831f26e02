LIBRARY: str

def load_library() -> str:
    """Opens zlib and returns its version, such as "1.2.13"; later calls return at once. Raises LibraryError."""
