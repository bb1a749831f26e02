FRAMEWORK_LIBRARY: str
CC_LIBRARY: str

def library_folder() -> str:
    """The folder of the installed tensorflow package, found without importing it. Raises LibraryError."""

def load_library(folder: str | None = None) -> str:
    """Opens libtensorflow and returns its version, such as "2.21.0"; later calls return at once.

    Blocks for about 0.3 s, with the GIL released. Raises LibraryError when the libraries are missing or too old.
    """
