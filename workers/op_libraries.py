"""Finds libraries of ops that TensorFlow itself does not have, and loads them before any model.

First on the worker's line of a model version: a SavedModel whose graph has custom ops can be loaded only once they are
registered. Main thread, at start.

Source: tensorflow/python/framework/load_library.py (what such a library is); PEP 376 (the files of a distribution).
"""

import importlib.metadata
import logging
import mmap
import os
from collections.abc import Iterator, Sequence

from tensorgate._native.shared_library import LibraryError
from tensorgate._native.tf_c_api import load_op_library

logger = logging.getLogger("tensorgate.worker")

# What a library asks of TensorFlow in order to register ops or kernels, in C++ and in C.
_REGISTRATIONS = (b"OpDefBuilder", b"OpKernelRegistrar", b"TF_RegisterOpDefinition", b"TF_RegisterKernelBuilder")
# Where Python would begin to import a module: those belong to a distribution's Python side, not to its ops.
_PYTHON_MODULE = b"PyInit_"


def load_op_libraries(names: Sequence[str]) -> None:
    """Loads each of ``names``, in order: the path of a library, or the name of an installed Python distribution.

    What contains a slash or ends with ``.so`` is a path. Of a distribution, such as ``tensorflow-text``, all libraries
    of ops are loaded; its Python code is not. Blocks. Raises LibraryError, saying what to do, for a name that is
    neither, for a distribution without ops, and for a library that does not load.
    """
    for name in names:
        if "/" in name or name.endswith(".so"):
            _load_file(name)
        else:
            _load_distribution(name)


def _load_file(name: str) -> None:
    path = os.path.abspath(name)
    if not os.path.isfile(path):
        raise LibraryError(f"--op_libraries names {name!r}, but there is no file {path}")
    load_op_library(path)
    logger.info("ops of %s are loaded", path)


def _load_distribution(name: str) -> None:
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError) as error:
        raise LibraryError(
            f"--op_libraries names {name!r}, but no Python distribution of that name is installed where the worker"
            " runs; a library's path contains a slash or ends with .so"
        ) from error
    paths = sorted(_libraries_of_ops(distribution))
    if not paths:
        raise LibraryError(f"--op_libraries names {name!r}, but that distribution has no library of TensorFlow ops")
    for path in paths:
        load_op_library(path)
    logger.info("ops of %s %s are loaded: %d libraries", name, distribution.version, len(paths))


def _libraries_of_ops(distribution: importlib.metadata.Distribution) -> Iterator[str]:
    for file in distribution.files or ():
        if file.suffix != ".so":
            continue
        path = str(distribution.locate_file(file))
        with open(path, "rb") as library, mmap.mmap(library.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content.find(_PYTHON_MODULE) < 0 and any(content.find(each) >= 0 for each in _REGISTRATIONS):
                yield path
