FRAMEWORK_LIBRARY: str
CC_LIBRARY: str

def library_folder() -> str:
    """The folder of the installed tensorflow package, found without importing it. Raises LibraryError."""

def load_library(folder: str | None = None) -> str:
    """Opens libtensorflow and returns its version, such as "2.21.0"; later calls return at once.

    Blocks for about 0.3 s, with the GIL released. Raises LibraryError when the libraries are missing or too old.
    """

def load_op_library(path: str) -> None:
    """Opens a library of ops and registers its ops and kernels, for as long as the process lives; after load_library.

    Blocks, with the GIL released. The library runs its initializers, with all the rights of the process. Raises
    LibraryError, naming the path, for one that cannot be opened, was built for another TensorFlow, or brings an op that
    is there already.
    """
