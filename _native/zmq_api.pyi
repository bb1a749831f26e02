def load_library() -> None:
    """Finds libzmq's functions; later calls return at once. Raises LibraryError when pyzmq's libzmq lacks one."""
