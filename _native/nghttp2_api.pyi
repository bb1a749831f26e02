BUNDLED_LIBRARY: str
LIBRARY: str

def load_library() -> str:
    """Opens libnghttp2 and returns its version, such as "1.52.0"; later calls return at once. Raises LibraryError."""
