class LibraryError(RuntimeError):
    """A library is not installed, or lacks what is needed of it; the text says which, and what."""
